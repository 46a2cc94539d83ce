//! A program that embeds the supervisor and speaks ractor itself, with any of ractor's features.

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use vllm_supervisor::{Command, ServiceState, SupervisorHandle};

/// An actor of the program.
#[derive(Debug)]
pub struct Host;

/// What the actor of the program is told.
#[derive(Debug)]
pub enum HostMessage {
    /// Ask the supervisor where it stands.
    Ask {
        /// Where the answer goes.
        reply: RpcReplyPort<ServiceState>,
    },
}

#[cfg(feature = "cluster")]
impl ractor::Message for HostMessage {}

#[cfg_attr(feature = "async-trait", ractor::async_trait)]
impl Actor for Host {
    type Msg = HostMessage;
    type State = SupervisorHandle;
    type Arguments = SupervisorHandle;

    async fn pre_start(
        &self,
        _: ActorRef<HostMessage>,
        supervisor: SupervisorHandle,
    ) -> Result<SupervisorHandle, ActorProcessingErr> {
        Ok(supervisor)
    }

    async fn handle(
        &self,
        _: ActorRef<HostMessage>,
        HostMessage::Ask { reply }: HostMessage,
        supervisor: &mut SupervisorHandle,
    ) -> Result<(), ActorProcessingErr> {
        let root: vllm_supervisor::ractor::DerivedActorRef<Command> = supervisor.actor_ref();
        let (ask, answer) = ractor::concurrency::oneshot();
        root.send_message(Command::Snapshot { reply: ask.into() })?;
        let snapshot = answer.await?;
        reply.send(snapshot.state)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use vllm_supervisor::Supervisor;

    use super::*;

    #[tokio::test]
    async fn an_actor_of_the_program_asks_the_one_of_the_supervisor() {
        let directory = tempfile::tempdir().unwrap();
        let supervisor = Supervisor::builder()
            .model("facebook/opt-125m")
            .vllm_binary(["/bin/true"])
            .state_dir(directory.path())
            .spawn()
            .await
            .unwrap();
        let (host, _) = Actor::spawn(None, Host, supervisor.clone()).await.unwrap();
        let state = ractor::call_t!(host, |reply| HostMessage::Ask { reply }, 30_000).unwrap();
        assert_eq!(state, ServiceState::Stopped);
        supervisor.shutdown().await;
    }

    #[test]
    fn the_json_of_the_program_is_as_it_would_be_without_the_supervisor() {
        let object: serde_json::Value = serde_json::from_str(r#"{"b":1,"a":2}"#).unwrap();
        assert_eq!(object.to_string(), r#"{"a":2,"b":1}"#);
    }
}
