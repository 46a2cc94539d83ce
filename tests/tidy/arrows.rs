//! Who may name whom. `ARCHITECTURE.md` says why.

use crate::paths::{Area, NamedPath, module_of, named_paths};
use crate::rule::{Finding, Rule, assert_kept, assert_sharp};
use crate::source::Source;
use crate::workspace::dependencies;

const CHILDREN: [&str; 4] = ["process", "health", "model_loader", "gpu_monitor"];

/// Files of the root package that put adapters in their place.
const COMPOSERS: [&str; 8] = [
    "src/builder.rs",
    "src/builder/parts.rs",
    "src/builder/models.rs",
    "src/launch_recipe.rs",
    "src/launch_recipe/preflight.rs",
    "src/launch_recipe/preflight/hub.rs",
    "src/error.rs",
    "src/wire/journal.rs",
];

const LAYERS: &[Rule] = &[
    Rule {
        says: "the domain imports std, thiserror, regex and memchr for its diagnosis, and itself",
        concerns: in_domain,
        find: |source| {
            shipped(source, |path| {
                let allowed = ["thiserror", "regex", "memchr"];
                let foreign = is_dependency(path) && !allowed.contains(&path.segment(0));
                foreign || path.segment(0) == "crate" && path.segment(1) != "domain"
            })
        },
        broken_by: ("actors/src/domain/x.rs", "use std::fmt;\nuse tokio::time::Instant;"),
        kept_by: (
            "actors/src/domain/x.rs",
            "use thiserror::Error; mod tests { use proptest::prelude::*; }",
        ),
    },
    Rule {
        says: "the domain knows neither clock nor environment: time comes in as an argument",
        concerns: in_domain,
        find: |source| {
            shipped(source, |path| {
                ["Instant::now", "SystemTime::now"].iter().any(|end| path.ends_in(end))
                    || ["env", "fs", "net", "process", "thread"]
                        .iter()
                        .any(|module| path.is_below(&format!("std::{module}")))
            })
        },
        broken_by: ("actors/src/domain/x.rs", "fn f() { let now = SystemTime::now(); }"),
        kept_by: ("actors/src/domain/x.rs", "use std::time::SystemTime; const A: B = C::now;"),
    },
    Rule {
        says: "the ports import the domain, and tokio's watch",
        concerns: |path| path.starts_with("actors/src/ports"),
        find: |source| {
            everywhere(source, |path| {
                let ours = path.is_below("crate::domain") || path.is_below("crate::ports");
                let foreign = is_dependency(path) && !path.is_below("tokio::sync::watch");
                foreign || path.segment(0) == "crate" && !ours
            })
        },
        broken_by: ("actors/src/ports.rs", "use crate::adapters::gpu;"),
        kept_by: ("actors/src/ports.rs", "use tokio::sync::watch; use crate::domain::gpu::Gpu;"),
    },
    Rule {
        says: "an adapter imports the domain, the ports and other adapters, and no actor",
        concerns: |path| path.starts_with("actors/src/adapters"),
        find: |source| {
            shipped(source, |path| {
                let allowed = ["domain", "ports", "adapters"];
                path.segment(0) == "crate" && !allowed.contains(&path.segment(1))
                    || path.segment(0) == "ractor"
            })
        },
        broken_by: ("actors/src/adapters/gpu/nvml.rs", "use crate::gpu_monitor::GpuMonitorActor;"),
        kept_by: (
            "actors/src/adapters/gpu/nvml.rs",
            "use super::hwmon; use crate::ports::GpuLook;",
        ),
    },
    Rule {
        says: "a child actor names neither the root, nor a sibling, nor an adapter",
        concerns: |path| {
            path.starts_with("actors/src/") && CHILDREN.contains(&&*first_module(path))
        },
        find: |source| {
            let own = first_module(&source.path);
            let others = CHILDREN.into_iter().filter(|child| *child != own);
            let taboo: Vec<&str> = others.chain(["root", "adapters"]).collect();
            everywhere(source, |path| {
                path.segment(0) == "crate" && taboo.contains(&path.segment(1))
            })
        },
        broken_by: ("actors/src/process/message.rs", "use crate::{domain::id::X, health::Y};"),
        kept_by: ("actors/src/process/message.rs", "use super::X; use rustix::process::Pid;"),
    },
];

const PACKAGES: &[Rule] = &[
    Rule {
        says: "the actors do not know the package that puts them together",
        concerns: in_actors,
        find: |source| everywhere(source, |path| path.segment(0) == "vllm_supervisor"),
        broken_by: ("actors/src/root.rs", "use vllm_supervisor::Supervisor;"),
        kept_by: ("actors/src/root.rs", "//! `vllm_supervisor::Supervisor`\nuse crate::root::x;"),
    },
    Rule {
        says: "adapters are named only where a supervisor is put together",
        concerns: |path| in_root_package(path) && !COMPOSERS.contains(&path),
        find: |source| shipped(source, |path| path.is_below("vllm_supervisor_actors::adapters")),
        broken_by: ("src/handle.rs", "use vllm_supervisor_actors::{adapters::gpu, root::X};"),
        kept_by: ("src/builder.rs", "use vllm_supervisor_actors::adapters::gpu;"),
    },
    Rule {
        says: "the tests see what an embedder sees",
        concerns: |path| path.starts_with("tests/"),
        find: |source| everywhere(source, |path| path.segment(0) == "vllm_supervisor_actors"),
        broken_by: ("tests/src/scenario.rs", "fn f(x: vllm_supervisor_actors::root::X) {}"),
        kept_by: ("tests/src/scenario.rs", "use vllm_supervisor::Supervisor;"),
    },
    Rule {
        says: "formats and flags belong to the root package",
        concerns: in_actors,
        find: |source| {
            everywhere(source, |path| ["serde", "schemars", "clap"].contains(&path.segment(0)))
        },
        broken_by: ("actors/src/root/snapshot.rs", "#[derive(serde::Serialize)] struct X;"),
        kept_by: ("actors/src/adapters/http_probe.rs", "use serde_json::Value;"),
    },
    Rule {
        says: "JSON is read in adapters, which hear it from vLLM",
        concerns: |path| in_actors(path) && !path.starts_with("actors/src/adapters"),
        find: |source| everywhere(source, |path| path.segment(0) == "serde_json"),
        broken_by: ("actors/src/process.rs", "fn f(x: serde_json::Value) {}"),
        kept_by: ("actors/src/adapters/process_record.rs", "use serde_json::Value;"),
    },
];

const TECHNOLOGIES: &[Rule] = &[
    Rule {
        says: "processes are started only in the launchers, and to ask the journal",
        concerns: |path| {
            let launcher = path.starts_with("actors/src/adapters/") && path.contains("launcher");
            is_shipped(path) && !launcher && !path.ends_with("kernel_log/system_journal.rs")
        },
        find: |source| shipped(source, |path| path.ends_in("Command::new")),
        broken_by: ("src/handle.rs", "fn f() { std::process::Command::new(g()); }"),
        kept_by: ("actors/src/adapters/launcher.rs", "fn f() { Command::new(g()); }"),
    },
    Rule {
        says: "among the actors, HTTP is spoken only in the probe",
        concerns: |path| in_actors(path) && path != "actors/src/adapters/http_probe.rs",
        find: |source| everywhere(source, |path| path.segment(0) == "reqwest"),
        broken_by: ("actors/src/health.rs", "use reqwest::Client;"),
        kept_by: ("actors/src/adapters/http_probe.rs", "use reqwest::Client;"),
    },
    Rule {
        says: "the Hub is asked only in one place, by a client of its own",
        concerns: |path| {
            is_shipped(path) && !path.starts_with("actors/src/adapters/preflight/hub_request")
        },
        find: |source| everywhere(source, |path| path.segment(0) == "ureq"),
        broken_by: ("actors/src/adapters/http_probe.rs", "use ureq::Agent;"),
        kept_by: ("actors/src/adapters/preflight/hub_request.rs", "use ureq::Agent;"),
    },
    Rule {
        says: "NVML is spoken only in its adapter",
        concerns: |path| is_shipped(path) && !path.starts_with("actors/src/adapters/gpu/"),
        find: |source| everywhere(source, |path| path.segment(0) == "nvml_wrapper"),
        broken_by: ("actors/src/gpu_monitor.rs", "use nvml_wrapper::Nvml;"),
        kept_by: ("actors/src/adapters/gpu/nvml.rs", "use nvml_wrapper::Nvml;"),
    },
    Rule {
        says: "the environment is read for the configuration, the command and tests, and nowhere below",
        concerns: |path| {
            let readers = ["src/config", "src/launch_recipe", "src/cli", "actors/src/testing"];
            is_shipped(path) && !readers.iter().any(|reader| path.starts_with(reader))
        },
        find: |source| shipped(source, |path| path.is_below("std::env")),
        broken_by: ("src/handle.rs", "use std::{env, fmt};"),
        kept_by: ("src/cli/run.rs", "use std::env;"),
    },
];

const GLOBALS: &[Rule] = &[
    Rule {
        says: "no event leaves by an output port: it loses them silently",
        concerns: is_shipped,
        find: |source| words(source, &["OutputPort"]),
        broken_by: ("actors/src/root.rs", "use ractor::OutputPort;"),
        kept_by: ("actors/src/root.rs", "// not by `OutputPort`"),
    },
    Rule {
        says: "no actor has a name: the registry is global",
        concerns: is_shipped,
        find: |source| {
            let mut findings = everywhere(source, |path| path.is_below("ractor::registry"));
            findings.extend(words(source, &["spawn", "(", "Some"]));
            findings.extend(words(source, &["spawn_linked", "(", "Some"]));
            findings
        },
        broken_by: ("actors/src/root.rs", "fn f() { Actor::spawn(Some(name), A, b); }"),
        kept_by: ("actors/src/root.rs", "fn f() { Actor::spawn(None, A, b); }"),
    },
    Rule {
        says: "nothing global holds state",
        concerns: is_shipped,
        find: |source| {
            let mut found = stateful_statics(source);
            found.extend(words(source, &["lazy_static"]));
            found.extend(words(source, &["thread_local"]));
            found
        },
        broken_by: ("src/handle.rs", "static X: std::sync::OnceLock<u8> = OnceLock::new();"),
        kept_by: ("src/handle.rs", "static X: &str = f(); fn g(x: &'static mut OnceLock<u8>) {}"),
    },
];

fn in_domain(path: &str) -> bool {
    path.starts_with("actors/src/domain")
}

fn in_actors(path: &str) -> bool {
    path.starts_with("actors/")
}

fn in_root_package(path: &str) -> bool {
    path.starts_with("src/")
}

fn is_shipped(path: &str) -> bool {
    in_root_package(path) || path.starts_with("actors/src/")
}

fn first_module(path: &str) -> String {
    module_of(path).into_iter().next().unwrap_or_default()
}

fn is_dependency(path: &NamedPath) -> bool {
    dependencies().iter().any(|name| name == path.segment(0))
}

/// The paths that are forbidden, in tests too.
fn everywhere(source: &Source, forbidden: impl Fn(&NamedPath) -> bool) -> Vec<Finding> {
    let paths = named_paths(source).into_iter().filter(forbidden);
    paths.map(|path| Finding { line: path.line, what: path.segments.join("::") }).collect()
}

/// The paths that are forbidden in what is shipped; tests may name them.
fn shipped(source: &Source, forbidden: impl Fn(&NamedPath) -> bool) -> Vec<Finding> {
    everywhere(source, |path| path.named_by == Area::Production && forbidden(path))
}

fn words(source: &Source, words: &[&str]) -> Vec<Finding> {
    let places = source.places_of(words).into_iter();
    places.map(|at| Finding { line: source.line(at), what: words.join(" ") }).collect()
}

/// Statics that can change: `mut`, or of a type that changes behind a shared reference.
fn stateful_statics(source: &Source) -> Vec<Finding> {
    let is_stateful = |word: &str| {
        let ends = ["mut", "Cell", "Lock", "Mutex"];
        ends.iter().any(|end| word.ends_with(end)) || word.starts_with("Atomic")
    };
    let mut found = Vec::new();
    for start in source.places_of(&["static"]) {
        let declaration = (start..source.tokens.len()).map(|at| source.word(at));
        let declaration: Vec<&str> = declaration.take_while(|word| *word != "=").collect();
        if declaration.iter().copied().any(is_stateful) {
            found.push(Finding { line: source.line(start), what: declaration.join(" ") });
        }
    }
    found
}

#[test]
fn a_static_that_can_change_is_found_by_its_type() {
    for (text, expected) in [
        ("static mut X: u8 = 0;", 1),
        ("static X: AtomicU8 = f();", 1),
        ("static X: LazyLock<u8> = f();", 1),
        ("static X: Mutex<u8> = f();", 1),
        ("static X: [&str; 2] = [a, b]; static Y: u8 = 1;", 0),
        ("struct X { y: OnceLock<u8> } fn f(y: &'static Mutex<u8>) {}", 0),
    ] {
        assert_eq!(stateful_statics(&Source::new("src/x.rs", text)).len(), expected, "{text}");
    }
}

#[test]
fn layers_name_only_the_layers_below() {
    assert_kept(LAYERS);
}

#[test]
fn packages_name_only_the_packages_below() {
    assert_kept(PACKAGES);
}

#[test]
fn a_technology_is_known_in_one_place() {
    assert_kept(TECHNOLOGIES);
}

#[test]
fn nothing_is_global() {
    assert_kept(GLOBALS);
}

#[test]
fn every_arrow_is_broken_by_its_example() {
    for rules in [LAYERS, PACKAGES, TECHNOLOGIES, GLOBALS] {
        assert_sharp(rules);
    }
}
