//! What may be sent to an actor, whichever of ractor's features the whole program has.
//!
//! Without its feature `cluster`, ractor makes every type a [`Message`](ractor::Message); with it,
//! only those that are made one, or are `BytesConvertable`. Cargo turns a feature on for all when
//! one crate of a program asks for it, and no crate can ask which features a dependency has.
//!
//! [`messages!`] needs not know. A name that a glob import does not bring is looked up further out:
//! where ractor has no `BytesConvertable`, the trait of that name in the macro is what is
//! implemented, and nobody's concern.

/// Lets these types be sent to actors of this program. Other nodes of a cluster cannot send them:
/// ractor drops a message whose decoder unwinds (`ractor` 0.16.5, `src/actor.rs`).
macro_rules! messages {
    ($($message:ty),+ $(,)?) => { $(
        const _: () = {
            #[expect(dead_code, reason = "stands in for ractor's, and nothing calls either")]
            trait BytesConvertable {
                fn into_bytes(self) -> Vec<u8>;
                fn from_bytes(bytes: Vec<u8>) -> Self;
            }

            const _: () = {
                use ractor::*;

                impl BytesConvertable for $message {
                    fn into_bytes(self) -> Vec<u8> {
                        Vec::new()
                    }

                    fn from_bytes(_: Vec<u8>) -> Self {
                        // Unlike a panic, it does not call the program's panic hook.
                        std::panic::resume_unwind(Box::new("not a message for other nodes"))
                    }
                }

                const fn can_be_sent<Sent: Message>() {}
                can_be_sent::<$message>();
            };
        };
    )+ };
}

pub(crate) use messages;
