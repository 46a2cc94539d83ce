//! What `extra_args` and `env` may have, and what they may not.

use super::mistakes::mistake;
use super::*;

#[test]
fn a_flag_of_ours_is_found_in_every_spelling() {
    for argument in [
        "--port",
        "--model=x",
        "--tensor_parallel_size=2",
        "--tensor-par",
        "-tp",
        "-t",
        "-pp=2",
        "--gpu-memory-utilization",
        "--device_memory_utilization=0.5",
        "--host.key",
        "--api-key=hush",
        "--uds",
        "--config",
    ] {
        let problem = mistake(&format!("extra_args: [--enforce-eager, '{argument}']"));
        assert_eq!(problem.key, "providers.vllm.extra_args[1]");
        assert!(!problem.to_string().contains("hush"), "{problem}");
    }
    for argument in ["--model-impl", "--port-range", "--", "-O3", "positional", "-tp2"] {
        let place = Place::with_settings(&format!("model: a/b\nextra_args: ['{argument}']"));
        assert_eq!(place.config().extra_args, [argument]);
    }
}

#[test]
fn a_flag_that_takes_vllm_out_of_sight_is_refused_with_the_reason() {
    for (arguments, reason) in [
        ("--ssl-keyfile, k.pem", "`--ssl-keyfile` makes vLLM speak TLS"),
        ("--ssl_certfile=c.pem", "`--ssl-certfile` makes vLLM speak TLS"),
        ("--ssl-k, k.pem", "`--ssl-keyfile` makes vLLM speak TLS"),
        ("--enable-ssl-refresh", "speak TLS"),
        ("--uds, /tmp/x", "listen where it is not looked for"),
        ("--grpc", "listen where it is not looked for"),
        ("--headless", "engines without a server"),
        ("--api-server-count, 0", "engines without a server"),
        ("-asc=0", "engines without a server"),
        ("--nnodes, 2", "one part of a server of several"),
        ("-n2", "one part of a server of several"),
        ("--node_rank=1", "one part of a server of several"),
        ("-r, 1", "one part of a server of several"),
        ("--master-addr, 10.0.0.1", "one part of a server of several"),
        ("--data-parallel-rank, 0", "one part of a server of several"),
        ("--data-parallel-size-l, 1", "one part of a server of several"),
        ("-dpe", "one part of a server of several"),
        ("--data-parallel-multi-port-external-lb", "a supervisor of vLLM's own"),
        ("--distributed-executor-backend, ray", "another program to start and end the workers"),
        ("-dpb=ray", "another program to start and end the workers"),
        ("--root-path, /v1", "hides a path"),
        ("--help", "print its help and end"),
        ("--config, more.yaml", "further flags from a file"),
    ] {
        let problem = mistake(&format!("extra_args: [{arguments}]"));
        assert_eq!(problem.key, "providers.vllm.extra_args[0]", "{arguments}");
        assert!(problem.message.contains(reason), "{arguments}: {problem}");
        assert!(!problem.help.is_empty(), "{arguments}");
    }
}

#[test]
fn a_flag_that_leaves_vllm_whole_and_in_sight_is_passed_on() {
    for arguments in [
        "--data-parallel-size, 2",
        "-dp=2",
        "--api-server-count, 2",
        "--distributed-executor-backend, mp",
        "--data-parallel-backend=mp",
        "--root-path, /llm",
        "--config-format, hf",
        "--grpc-port=9",
        "--no-enable-ssl-refresh",
        "--disable-uvicorn-access-log",
        "--seed, -1",
    ] {
        let settings = format!("model: a/b\nextra_args: [{}]", arguments.replace("-1", "'-1'"));
        assert!(!Place::with_settings(&settings).config().extra_args.is_empty(), "{arguments}");
    }
}

#[test]
fn what_code_could_be_run_by_without_a_key_is_for_this_machine_alone() {
    let settings = "model: a/b\nenv: {VLLM_SERVER_DEV_MODE: 1}";
    assert_eq!(Place::with_settings(settings).config().env.len(), 1);
    let exposed = format!("{settings}\nhost: 0.0.0.0");
    let problems = Place::with_settings(&exposed).variable("VLLM_API_KEY", "key").problems();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert_eq!(problems[0].key, "providers.vllm.env.VLLM_SERVER_DEV_MODE");
}

#[test]
fn a_variable_that_says_otherwise_than_the_network_is_refused() {
    let problem = mistake("network: airgapped\nenv: {HF_HUB_OFFLINE: 0, TRANSFORMERS_OFFLINE: 1}");
    assert_eq!(problem.key, "providers.vllm.env.HF_HUB_OFFLINE");
    assert_eq!(problem.value.as_deref(), Some("0"));
    let online = "model: a/b\nnetwork: online\nenv: {HF_HUB_OFFLINE: 0}";
    assert_eq!(Place::with_settings(online).config().env.len(), 1);
}
