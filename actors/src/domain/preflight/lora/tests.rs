//! Which adapters end a launch, and which may do.

use super::*;

fn module() -> LoraModule {
    LoraModule { name: "sql".to_owned(), path: "/loras/sql".to_owned() }
}

fn plan(largest_rank: Option<u64>) -> LoraPlan {
    LoraPlan { is_enabled: true, largest_rank, modules: vec![module()] }
}

fn whole(rank: u64) -> Adapter {
    Adapter {
        module: module(),
        config: AdapterConfig::Read { rank: Some(rank), largest_of_pattern: None },
        weights: Ok(Some(weights(None))),
    }
}

fn weights(fault: Option<WeightFault>) -> WeightFile {
    WeightFile { name: "adapter_model.safetensors".to_owned(), bytes: 9, fault }
}

fn judged(plan: &LoraPlan, adapter: Adapter) -> Assessment {
    let mut findings = judge_adapters(plan, &[adapter]);
    assert_eq!(findings.len(), 1, "{findings:?}");
    findings.remove(0).assessment
}

fn fatal(plan: &LoraPlan, adapter: Adapter) -> Cause {
    match judged(plan, adapter) {
        Assessment::Fatal(cause) => cause,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_whole_adapter_of_a_rank_that_is_allowed_has_nothing_against_it() {
    assert!(matches!(judged(&plan(Some(16)), whole(16)), Assessment::Fine(_)));
    assert!(matches!(judged(&plan(None), whole(512)), Assessment::Fine(_)));
    assert_eq!(judge_adapters(&LoraPlan::default(), &[]), []);
}

#[test]
fn an_adapter_that_is_not_there_or_not_whole_is_fatal() {
    let with = |config| Adapter { config, ..whole(8) };
    let of = |weights| Adapter { weights, ..whole(8) };
    for (adapter, code, part) in [
        (with(AdapterConfig::Missing), Code::InvalidModelId, "/loras/sql"),
        (with(AdapterConfig::Broken("no end".to_owned())), Code::ModelFilesBroken, "no end"),
        (of(Ok(None)), Code::ModelFilesBroken, "no weights"),
        (of(Ok(Some(weights(Some(WeightFault::LfsPointer))))), Code::ModelFilesBroken, "LFS"),
        (
            of(Ok(Some(weights(Some(WeightFault::NotSafetensors))))),
            Code::ModelFilesBroken,
            "adapter_model.safetensors",
        ),
    ] {
        let cause = fatal(&plan(Some(16)), adapter);
        assert_eq!(cause.code, code, "{cause}");
        assert!(cause.summary.contains(part), "{cause}");
    }
}

#[test]
fn a_rank_above_what_is_allowed_is_told_with_the_flag_that_allows_it() {
    for (rank, remedy) in [(17, "--max-lora-rank 32"), (300, "--max-lora-rank 320"), (600, "512")] {
        let cause = fatal(&plan(Some(16)), whole(rank));
        assert_eq!(cause.code, Code::ArgumentsRejected);
        assert!(cause.summary.contains(&rank.to_string()), "{cause}");
        assert!(cause.remedy().contains(remedy), "{}", cause.remedy());
    }
    let config = AdapterConfig::Read { rank: Some(8), largest_of_pattern: Some(64) };
    let judged = judged(&plan(Some(16)), Adapter { config, ..whole(8) });
    assert!(matches!(&judged, Assessment::Warning(said) if said.contains("64")), "{judged:?}");
}

#[test]
fn adapters_want_lora_to_be_enabled() {
    let cause = fatal(&LoraPlan { is_enabled: false, ..plan(Some(16)) }, whole(8));
    assert_eq!(cause.code, Code::ArgumentsRejected);
    assert!(cause.remedy().contains("--enable-lora"), "{}", cause.remedy());
}

#[test]
fn what_could_not_be_read_is_not_called_broken() {
    for adapter in [
        Adapter { config: AdapterConfig::Unread("denied".to_owned()), ..whole(8) },
        Adapter { weights: Err("denied".to_owned()), ..whole(8) },
        Adapter {
            config: AdapterConfig::Read { rank: None, largest_of_pattern: None },
            ..whole(8)
        },
    ] {
        let judged = judged(&plan(Some(16)), adapter);
        assert!(matches!(judged, Assessment::Unknown(_)), "{judged:?}");
    }
}
