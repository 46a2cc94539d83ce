//! Every input in every situation, as a table that a person can check line by line.
//!
//! A state, a variant of its data, or an input that is new does not compile until `cases` names
//! it, and then fails until the table has its column or row.

use super::cases::{Act, Kind, Situation, about_the_past, act, input, kind, machine_in, situation};
use super::script::{noon, state_entered};
use crate::domain::state::ServiceState;

/// In the columns of situations, what each row's input does; the words are those of [`meaning`].
const TABLE: [&str; 4] = [
    "                  LookIdle  LookRest  LookUp    LookAnew  LostIdle  LostRest  LostUp    LostAnew  HangIdle HangRest HangUp   HangAnew DarkIdle  DarkRest  DarkUp    DarkAnew  BlindIdle BlindRest BlindUp   BlindAnew
     Start             want      anew      .         .         want      anew      .         .         want     anew     .        .        want      anew      .         .         want      anew      .         .
     Ensure            want      anew      .         .         want      anew      .         .         want     anew     .        .        want      anew      .         .         want      anew      .         .
     StopGraceful      rest      .         rest      rest      rest      .         rest      rest      rest     .        rest     rest     rest      .         rest      rest      rest      .         rest      rest
     StopImmediate     rest      .         rest      rest      rest      .         rest      rest      hasten   hasten   hasten   hasten   rest      .         rest      rest      rest      .         rest      rest
     Restart           anew      anew      anew      .         anew      anew      anew      .         anew     anew     anew     .        anew      anew      anew      .         anew      anew      anew      .
     LoadSame          want      anew      .         .         want      anew      .         .         want     anew     .        .        want      anew      .         .         want      anew      .         .
     LoadOther         want      anew      .         .         want      anew      .         .         want     anew     .        .        want      anew      .         .         want      anew      .         .
     NeedSame          want      anew      .         .         want      anew      .         .         want     anew     .        .        want      anew      .         .         want      anew      .         .
     NeedOther         want      anew      .         .         want      anew      .         .         want     anew     .        .        want      anew      .         .         want      anew      .         .
     ShutDown          down-wait down-wait down-wait down-wait down-wait down-wait down-wait down-wait down     down     down     down     down-wait down-wait down-wait down-wait down-wait down-wait down-wait down-wait
     Drained           .         .         .         .         .         .         .         .         .        .        .        .        .         .         .         .         .         .         .         .
     Completed         .         .         .         .         .         .         .         .         .        .        .        .        .         .         .         .         .         .         .         .
     Felt              .         .         .         .         .         .         .         .         .        .        .        .        .         .         .         .         .         .         .         .
     Tried             .         .         .         .         .         .         .         .         .        .        .        .        .         .         .         .         .         .         .         .
     Adopted           watch     drain     watch     drain-up  watch     drain     watch     drain-up  watch    drain    watch    drain-up watch     drain     watch     drain-up  watch     drain     watch     drain-up
     RemnantFound      remove    remove    remove    remove    remove    remove    remove    remove    remove   remove   remove   remove   remove    remove    remove    remove    remove    remove    remove    remove
     NothingFound      halt      halt      relaunch  relaunch  halt      halt      relaunch  relaunch  halt     halt     relaunch relaunch halt      halt      relaunch  relaunch  halt      halt      relaunch  relaunch
     LookFailed        blind     blind     blind     blind     blind     blind     blind     blind     blind    blind    blind    blind    .         .         .         .         .         .         .         .
     Launched          .         .         .         .         .         .         .         .         .        .        .        .        .         .         .         .         .         .         .         .
     LaunchFailed      .         .         .         .         halt      halt      relaunch  relaunch  halt     halt     relaunch relaunch .         .         .         .         halt      halt      relaunch  relaunch
     Exited            .         .         .         .         .         .         .         .         .        .        .        .        .         .         .         .         .         .         .         .
     MemberDied        .         .         .         .         .         .         .         .         .        .        .        .        .         .         .         .         .         .         .         .
     Diagnosed         .         .         .         .         .         .         .         .         .        .        .        .        .         .         .         .         .         .         .         .
     Vacated           .         .         .         .         halt      halt      relaunch  relaunch  halt     halt     relaunch relaunch .         .         .         .         halt      halt      relaunch  relaunch
     Lingered          .         .         .         .         doubt     doubt     doubt     doubt     .        .        .        .        .         .         .         .         doubt     doubt     doubt     doubt
     Sampled           .         .         .         .         .         .         .         .         .        .        .        .        .         .         .         .         .         .         .         .
     Healthy           .         .         .         .         .         .         .         .         .        .        .        .        .         .         .         .         .         .         .         .
     Unhealthy         .         .         .         .         .         .         .         .         .        .        .        .        .         .         .         .         .         .         .         .
     ModelMissing      .         .         .         .         .         .         .         .         .        .        .        .        .         .         .         .         .         .         .         .
     PortTaken         .         .         .         .         .         .         .         .         .        .        .        .        .         .         .         .         .         .         .         .
     ListenerUnknown   .         .         .         .         .         .         .         .         .        .        .        .        .         .         .         .         .         .         .         .
     Began             .         .         .         .         .         .         .         .         .        .        .        .        .         .         .         .         .         .         .         .
     Progressed        .         .         .         .         .         .         .         .         .        .        .        .        .         .         .         .         .         .         .         .
     Stands            .         .         .         .         .         .         .         .         .        .        .        .        .         .         .         .         .         .         .         .
     Listens           .         .         .         .         .         .         .         .         .        .        .        .        .         .         .         .         .         .         .         .
     GpuBroken         .         .         .         .         .         .         .         .         .        .        .        .        .         .         .         .         .         .         .         .
     GpuFaulty         .         .         .         .         .         .         .         .         .        .        .        .        .         .         .         .         .         .         .         .
     GpuWell           .         .         .         .         .         .         .         .         .        .        .        .        .         .         .         .         .         .         .         .
     RestartDue        .         .         .         .         .         .         .         .         .        .        .        .        .         .         .         .         .         .         .         .
     SilenceDue        .         .         .         .         .         .         .         .         .        .        .        .        .         .         .         .         .         .         .         .
     DrainDue          .         .         .         .         .         .         .         .         .        .        .        .        .         .         .         .         .         .         .         .
     VitalsDue         .         .         .         .         .         .         .         .         .        .        .        .        .         .         .         .         .         .         .         .
     DiagnosisDue      .         .         .         .         .         .         .         .         .        .        .        .        .         .         .         .         .         .         .         .
     WindowDue         .         .         .         .         .         .         .         .         .        .        .        .        .         .         .         .         .         .         .         .
     EndDue            .         .         .         .         .         .         .         .         .        .        .        .        .         .         .         .         .         .         .         .
     ProcessActorLost  look      look      look      look      look      look      look      look      relook   relook   relook   relook   relook    relook    relook    relook    relook    relook    relook    relook",
    "                  Stopped Failed Silent   Loading  Quiet    Doomed   Running    DrainRest DrainUp   EndIdle   EndRest   EndUp
     Start             launch  launch .        .        .        .        .          want      .         want      want      .
     Ensure            launch  .      .        .        .        .        .          want      .         want      want      .
     StopGraceful      .       halt   end      end      end      end      drain      .         rest      rest      .         rest
     StopImmediate     .       halt   end      end      end      end      end        hasten    hasten    hasten    hasten    hasten
     Restart           launch  launch cycle    cycle    cycle    cycle    drain-up   want      .         want      want      .
     LoadSame          launch  launch .        .        .        .        .          want      .         want      want      .
     LoadOther         launch  launch turn     turn     turn     turn     turn-serve want      .         want      want      .
     NeedSame          launch  .      .        .        .        .        .          want      .         want      want      .
     NeedOther         launch  .      turn     turn     turn     turn     turn-serve want      .         want      want      .
     ShutDown          down    down   down-end down-end down-end down-end down-drain down-wait down-wait down-wait down-wait down-wait
     Drained           .       .      .        .        .        .        .          hasten    order     .         .         .
     Completed         .       .      .        .        .        .        .          .         .         .         .         .
     Felt              .       .      .        .        .        .        .          .         .         .         .         .
     Tried             .       .      .        .        .        .        .          .         .         .         .         .
     Adopted           .       .      .        .        .        .        .          .         .         .         .         .
     RemnantFound      .       .      .        .        .        .        .          .         .         .         .         .
     NothingFound      .       .      .        .        .        .        .          .         .         .         .         .
     LookFailed        .       .      .        .        .        .        .          .         .         .         .         .
     Launched          .       .      exists   .        .        .        .          .         .         .         .         .
     LaunchFailed      .       .      miss     miss     miss     miss     .          halt      relaunch  halt      halt      relaunch
     Exited            .       .      crash    crash    crash    crash    crash      reap      reap      .         .         .
     MemberDied        .       .      crash    crash    crash    .        crash      .         .         .         .         .
     Diagnosed         .       .      .        .        .        .        .          .         .         .         .         .
     Vacated           .       .      .        .        .        .        .          halt      relaunch  halt      halt      relaunch
     Lingered          .       .      .        .        .        .        .          hang      hang      hang      hang      hang
     Sampled           .       .      .        .        .        .        .          .         .         .         .         .
     Healthy           .       .      .        run      run      .        .          .         .         .         .         .
     Unhealthy         .       .      .        .        .        .        crash      .         .         .         .         .
     ModelMissing      .       .      crash    crash    crash    crash    crash      .         .         .         .         .
     PortTaken         .       .      .        crash    crash    crash    crash      .         .         .         .         .
     ListenerUnknown   .       .      .        .        .        .        .          .         .         .         .         .
     Began             .       .      .        .        .        .        .          .         .         .         .         .
     Progressed        .       .      .        .        .        .        .          .         .         .         .         .
     Stands            .       .      .        .        .        .        .          .         .         .         .         .
     Listens           .       .      probe    probe    probe    probe    .          .         .         .         .         .
     GpuBroken         .       .      crash    crash    crash    crash    crash      .         .         .         .         .
     GpuFaulty         .       .      .        .        .        .        try        .         .         .         .         .
     GpuWell           .       .      .        .        .        .        .          .         .         .         .         .
     RestartDue        .       .      .        .        .        .        .          .         .         .         .         .
     SilenceDue        .       .      ask      ask      crash    crash    .          .         .         .         .         .
     DrainDue          .       .      .        .        .        .        .          hasten    order     .         .         .
     VitalsDue         .       .      .        .        .        .        vitals     .         .         .         .         .
     DiagnosisDue      .       .      .        .        .        .        .          .         .         .         .         .
     WindowDue         .       .      .        .        .        .        .          .         .         .         .         .
     EndDue            .       .      .        .        .        .        .          .         .         .         .         .
     ProcessActorLost  .       .      lose-up  lose-up  lose-up  lose-up  lose-up    lose      lose      lose      lose      lose",
    "                  ClearAt   ClearNow  ClearGive StuckAt   StuckNow  StuckGive SeekAt    SeekNow   SeekGive  BlankAt   BlankNow  BlankGive Backoff
     Start             want      .         want      want      .         want      want      .         want      want      .         want      launch
     Ensure            .         .         .         .         .         .         .         .         .         .         .         .         .
     StopGraceful      kill      kill      kill      remove    remove    remove    unsure    unsure    unsure    unsure    unsure    unsure    halt
     StopImmediate     kill      kill      kill      remove    remove    remove    unsure    unsure    unsure    unsure    unsure    unsure    halt
     Restart           want      .         want      want      .         want      want      .         want      want      .         want      launch
     LoadSame          want      .         want      want      .         want      want      .         want      want      .         want      launch
     LoadOther         want      .         want      want      .         want      want      .         want      want      .         want      launch
     NeedSame          .         .         .         .         .         .         .         .         .         .         .         .         .
     NeedOther         .         .         .         .         .         .         .         .         .         .         .         .         .
     ShutDown          down-kill down-kill down-kill down-kill down-kill down-kill down-seek down-seek down-seek down-seek down-seek down-seek down-now
     Drained           .         .         .         .         .         .         .         .         .         .         .         .         .
     Completed         .         .         .         .         .         .         .         .         .         .         .         .         .
     Felt              .         .         .         .         .         .         .         .         .         .         .         .         .
     Tried             .         .         .         .         .         .         .         .         .         .         .         .         .
     Adopted           .         .         .         .         .         .         clear     clear     clear     clear     clear     clear     .
     RemnantFound      .         .         .         .         .         .         clear     clear     clear     clear     clear     clear     .
     NothingFound      .         .         .         .         .         .         gone      launch    fail      gone      launch    fail      .
     LookFailed        .         .         .         .         .         .         blank     blank     blank     .         .         .         .
     Launched          .         .         .         .         .         .         .         .         .         .         .         .         .
     LaunchFailed      .         .         .         .         .         .         .         .         .         .         .         .         .
     Exited            .         .         .         .         .         .         .         .         .         .         .         .         .
     MemberDied        .         .         .         .         .         .         .         .         .         .         .         .         .
     Diagnosed         .         .         .         .         .         .         .         .         .         .         .         .         .
     Vacated           gone      launch    fail      gone      launch    fail      gone      launch    fail      gone      launch    fail      .
     Lingered          stuck     stuck     stuck     .         .         .         .         .         .         .         .         .         .
     Sampled           .         .         .         .         .         .         .         .         .         .         .         .         .
     Healthy           .         .         .         .         .         .         .         .         .         .         .         .         .
     Unhealthy         .         .         .         .         .         .         .         .         .         .         .         .         .
     ModelMissing      .         .         .         .         .         .         .         .         .         .         .         .         .
     PortTaken         .         .         .         .         .         .         .         .         .         .         .         .         .
     ListenerUnknown   .         .         .         .         .         .         .         .         .         .         .         .         .
     Began             .         .         .         .         .         .         .         .         .         .         .         .         .
     Progressed        .         .         .         .         .         .         .         .         .         .         .         .         .
     Stands            .         .         .         .         .         .         .         .         .         .         .         .         .
     Listens           .         .         .         .         .         .         .         .         .         .         .         .         .
     GpuBroken         .         .         .         .         .         .         .         .         .         .         .         .         .
     GpuFaulty         .         .         .         .         .         .         .         .         .         .         .         .         .
     GpuWell           .         .         .         .         .         .         .         .         .         .         .         .         .
     RestartDue        want      .         .         want      .         .         want      .         .         want      .         .         launch
     SilenceDue        .         .         .         .         .         .         .         .         .         .         .         .         .
     DrainDue          .         .         .         .         .         .         .         .         .         .         .         .         .
     VitalsDue         .         .         .         .         .         .         .         .         .         .         .         .         .
     DiagnosisDue      .         .         .         .         .         .         .         .         .         .         .         .         .
     WindowDue         .         .         .         .         .         .         .         .         .         .         .         .         .
     EndDue            .         .         .         .         .         .         .         .         .         .         .         .         .
     ProcessActorLost  seek      seek      seek      seek      seek      seek      look      look      look      seek      seek      seek      .",
    "                  ClearOpen StuckOpen SeekOpen  BlankOpen DoneOpen
     Start             want      want      want      want      launch
     Ensure            .         .         .         .         .
     StopGraceful      kill      remove    unsure    unsure    halt
     StopImmediate     kill      remove    unsure    unsure    halt
     Restart           want      want      want      want      launch
     LoadSame          want      want      want      want      launch
     LoadOther         want      want      want      want      launch
     NeedSame          .         .         .         .         .
     NeedOther         .         .         .         .         .
     ShutDown          down-kill down-kill down-seek down-seek down-now
     Drained           .         .         .         .         .
     Completed         .         .         .         .         .
     Felt              .         .         .         .         .
     Tried             .         .         .         .         .
     Adopted           .         .         clear     clear     .
     RemnantFound      .         .         clear     clear     .
     NothingFound      .         .         gone-open gone-open .
     LookFailed        .         .         blank     .         .
     Launched          .         .         .         .         .
     LaunchFailed      .         .         .         .         .
     Exited            .         .         .         .         .
     MemberDied        .         .         .         .         .
     Diagnosed         judge     judge     judge     judge     judge
     Vacated           gone-open gone-open gone-open gone-open .
     Lingered          stuck     .         .         .         .
     Sampled           .         .         .         .         .
     Healthy           .         .         .         .         .
     Unhealthy         .         .         .         .         .
     ModelMissing      .         .         .         .         .
     PortTaken         .         .         .         .         .
     ListenerUnknown   .         .         .         .         .
     Began             .         .         .         .         .
     Progressed        .         .         .         .         .
     Stands            .         .         .         .         .
     Listens           .         .         .         .         .
     GpuBroken         .         .         .         .         .
     GpuFaulty         .         .         .         .         .
     GpuWell           .         .         .         .         .
     RestartDue        .         .         .         .         .
     SilenceDue        .         .         .         .         .
     DrainDue          .         .         .         .         .
     VitalsDue         .         .         .         .         .
     DiagnosisDue      judge     judge     judge     judge     judge
     WindowDue         .         .         .         .         .
     EndDue            .         .         .         .         .
     ProcessActorLost  seek      seek      look      seek      .",
];

/// What a word of the table stands for.
#[derive(Debug)]
struct Meaning {
    /// The states that are entered, in order.
    path: &'static [ServiceState],
    /// The kinds of effects, in order.
    effects: &'static [Act],
    /// Where it may end; empty means where it was.
    lands: &'static [Situation],
}

fn meaning(word: &str) -> Meaning {
    use Act::{Adopt, Disregard, FinishLoading, Launch, Prepare, Schedule, Stop, Watch};
    use ServiceState as S;
    use Situation::{
        BlankAt, BlankGive, BlankNow, BlankOpen, BlindAnew, BlindIdle, BlindRest, BlindUp,
        ClearNow, DarkAnew, DarkIdle, DarkRest, DarkUp, DrainRest, DrainUp, EndIdle, EndRest,
        EndUp, HangAnew, HangIdle, HangRest, HangUp, Loading, LookAnew, LookIdle, LookRest, LookUp,
        LostAnew, LostIdle, LostRest, LostUp, Running, SeekNow, Silent, Stopped, StuckNow,
    };
    let (path, effects, lands): (&[S], &[Act], &[Situation]) = match word {
        "." => (&[], &[], &[]),
        "want" => (
            &[],
            &[],
            &[
                LookUp, LostUp, HangUp, DarkUp, BlindUp, DrainUp, EndUp, ClearNow, StuckNow,
                SeekNow, BlankNow,
            ],
        ),
        "rest" => {
            (&[], &[], &[LookRest, LostRest, HangRest, DarkRest, BlindRest, DrainRest, EndRest])
        }
        "hasten" => (&[], &[Stop], &[HangRest, EndRest]),
        "launch" => (&[S::Starting], &[Launch, Schedule], &[Silent]),
        "watch" => (&[S::Starting], &[Watch, Schedule], &[Loading]),
        "remove" => (&[S::Stopping], &[Stop], &[EndIdle, EndRest, EndUp]),
        "halt" => (&[S::Stopped], &[], &[Stopped]),
        "relaunch" => (&[S::Stopped, S::Starting], &[Launch, Schedule], &[Silent]),
        "look" => (&[], &[Adopt], &[]),
        "relook" => (
            &[],
            &[Adopt],
            &[LookIdle, LookRest, LookUp, LookAnew, LostIdle, LostRest, LostUp, LostAnew],
        ),
        "doubt" => (&[], &[], &[HangIdle, HangRest, HangUp, HangAnew]),
        "hang" => (&[S::Unknown], &[], &[HangIdle, HangRest, HangAnew]),
        "lose" => (&[S::Unknown], &[Disregard, Adopt], &[LostIdle, LostRest, LostAnew]),
        "lose-up" => (&[S::Unknown], &[Disregard, Adopt], &[LostUp]),
        "unsure" => (&[S::Unknown], &[], &[LostRest, BlindRest]),
        "end" => (&[S::Stopping], &[Disregard, Stop], &[EndRest]),
        "turn" => (&[S::Stopping], &[Prepare, Disregard, Stop], &[EndUp]),
        "cycle" => (&[S::Stopping], &[Disregard, Stop], &[EndUp]),
        "kill" => (&[S::Stopping], &[Stop], &[EndRest]),
        "anew" => (&[], &[], &[LookAnew, LostAnew, HangAnew, DarkAnew, BlindAnew]),
        "blind" => (
            &[],
            &[],
            &[DarkIdle, DarkRest, DarkUp, DarkAnew, BlindIdle, BlindRest, BlindUp, BlindAnew],
        ),
        "blank" => (&[], &[], &[BlankAt, BlankNow, BlankGive, BlankOpen]),
        "exists" => (&[], &[], &[Loading]),
        "run" => (&[S::Running], &[FinishLoading, Schedule], &[Running]),
        "probe" | "ask" | "vitals" | "try" => (&[], asked(word), &[]),
        other => return meaning_of_an_end(other),
    };
    Meaning { path, effects, lands }
}

fn asked(word: &str) -> &'static [Act] {
    match word {
        "probe" => &[Act::Probe],
        "try" => &[Act::AskForToken],
        "ask" => &[Act::Sample, Act::Schedule],
        _ => &[Act::Sample, Act::FeelPulse, Act::Schedule],
    }
}

fn meaning_of_an_end(word: &str) -> Meaning {
    use Act::{Adopt, Clear, Diagnose, Disregard, Drain, End, Prepare, Schedule, Stop};
    use ServiceState as S;
    use Situation::{
        Backoff, BlankAt, BlindRest, ClearAt, ClearGive, ClearNow, ClearOpen, DarkRest, DoneOpen,
        DrainRest, DrainUp, EndRest, EndUp, Failed, HangRest, LookRest, LostRest, SeekAt, SeekGive,
        SeekNow, SeekOpen, Stopped, StuckAt, StuckGive, StuckNow, StuckOpen,
    };
    let (path, effects, lands): (&[S], &[Act], &[Situation]) = match word {
        "crash" => (&[S::Crashed], &[Disregard, Diagnose, Clear, Schedule], &[ClearOpen]),
        "judge" => (&[], &[Schedule, Schedule], &[ClearAt, StuckAt, SeekAt, BlankAt, Backoff]),
        "miss" => (&[S::Crashed], &[Disregard, Schedule, Schedule], &[Backoff]),
        "seek" => (&[], &[Adopt], &[SeekAt, SeekNow, SeekGive, SeekOpen]),
        "clear" => (&[], &[Clear], &[ClearAt, ClearNow, ClearGive, ClearOpen]),
        "gone" => (&[], &[], &[Backoff]),
        "gone-open" => (&[], &[], &[DoneOpen]),
        "fail" => (&[S::Failed], &[], &[Failed]),
        "drain" => (&[S::Stopping], &[Disregard, Drain, Schedule], &[DrainRest]),
        "drain-up" => (&[S::Stopping], &[Disregard, Drain, Schedule], &[DrainUp]),
        "turn-serve" => (&[S::Stopping], &[Prepare, Disregard, Drain, Schedule], &[DrainUp]),
        "order" => (&[], &[Stop], &[EndRest, EndUp]),
        "reap" => (&[], &[Clear], &[EndRest, EndUp]),
        "stuck" => (&[], &[], &[StuckAt, StuckNow, StuckGive, StuckOpen]),
        "down-wait" => {
            (&[], &[Schedule], &[LookRest, LostRest, DarkRest, BlindRest, DrainRest, EndRest])
        }
        "down-end" => (&[S::Stopping], &[Disregard, Stop, Schedule], &[EndRest]),
        "down-drain" => (&[S::Stopping], &[Disregard, Drain, Schedule, Schedule], &[DrainRest]),
        "down-kill" => (&[S::Stopping], &[Stop, Schedule], &[EndRest]),
        "down-seek" => (&[S::Unknown], &[Schedule], &[LostRest, BlindRest]),
        "down" => (&[], &[Schedule, End], &[HangRest, Stopped, Failed]),
        "down-now" => (&[S::Stopped], &[Schedule, End], &[Stopped]),
        unknown => panic!("the table has a word without a meaning: {unknown}"),
    };
    Meaning { path, effects, lands }
}

#[test]
fn every_input_does_in_every_situation_what_the_table_says() {
    for &before in Situation::ALL {
        for &given in Kind::ALL {
            let word = expected(before, given);
            let meaning = meaning(word);
            let mut machine = machine_in(before);
            let reaction = machine.on(input(given), noon());
            let path: Vec<_> =
                reaction.events.iter().filter_map(|event| state_entered(&event.kind)).collect();
            let rests = |act: &Act| *act == Act::Rest;
            let (rest, effects): (Vec<_>, Vec<_>) =
                reaction.effects.iter().map(act).partition(rests);
            let after = situation(machine.state());
            let context = format!("{given:?} in {before:?} should `{word}`, but led to {after:?}");
            assert_eq!((&path[..], &effects[..]), (meaning.path, meaning.effects), "{context}");
            let lands = if meaning.lands.is_empty() { &[before][..] } else { meaning.lands };
            assert!(lands.contains(&after), "{context}");
            let comes_to_rest =
                matches!(path.last(), Some(ServiceState::Stopped | ServiceState::Failed));
            assert_eq!(!rest.is_empty(), comes_to_rest, "{context}: {rest:?}");
        }
    }
}

#[test]
fn a_report_about_another_incarnation_does_nothing_in_any_situation() {
    for &before in Situation::ALL {
        for &given in Kind::ALL {
            let Some(stale) = about_the_past(given) else { continue };
            let mut machine = machine_in(before);
            let state = machine.state().clone();
            let reaction = machine.on(stale, noon());
            assert!(
                reaction.effects.is_empty() && reaction.events.is_empty(),
                "a stale {given:?} in {before:?} led to {reaction:?}"
            );
            assert_eq!(machine.state(), &state, "a stale {given:?} changed {before:?}");
        }
    }
}

#[test]
fn every_case_is_what_it_is_called() {
    for &one in Situation::ALL {
        assert_eq!(situation(machine_in(one).state()), one);
    }
    for &one in Kind::ALL {
        assert_eq!(kind(&input(one)), one);
    }
}

#[test]
fn the_table_has_no_row_and_no_column_too_many() {
    let rows: Vec<String> = Kind::ALL.iter().map(|kind| format!("{kind:?}")).collect();
    let columns: Vec<String> = Situation::ALL.iter().map(|one| format!("{one:?}")).collect();
    let mut headings = Vec::new();
    for table in TABLE {
        headings.extend(table.lines().next().unwrap().split_whitespace());
        let listed: Vec<_> =
            table.lines().skip(1).filter_map(|row| row.split_whitespace().next()).collect();
        assert_eq!(listed, rows);
    }
    assert_eq!(headings, columns);
}

/// The word at the crossing of a row and a column.
fn expected(situation: Situation, kind: Kind) -> &'static str {
    let (row, column) = (format!("{kind:?}"), format!("{situation:?}"));
    TABLE
        .iter()
        .find_map(|table| {
            let mut lines = table.lines();
            let place = lines.next()?.split_whitespace().position(|name| name == column)?;
            let cells = lines.find(|line| line.split_whitespace().next() == Some(&row))?;
            cells.split_whitespace().nth(place + 1)
        })
        .unwrap_or_else(|| panic!("the table does not say what {row} does in {column}"))
}
