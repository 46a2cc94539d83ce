//! What the machine itself offers a launch. None of it surely ends one: what is scarce is a warning.

use super::{Assessment, Finding, Plan, Subject};

/// What was seen of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Bytes that are free in `/dev/shm`, or why that is not known.
    pub shared_memory: Option<Result<u64, String>>,
    /// The most files that vLLM may have open (`RLIMIT_NOFILE`, hard); `None` for no limit.
    pub open_files: Option<u64>,
    /// Bytes that are free where vLLM and we write.
    pub disks: Vec<Disk>,
    /// The C compiler on the PATH that vLLM has, if there is one.
    pub compiler: Option<String>,
}

/// The room in a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// What is written there.
    pub purpose: &'static str,
    /// The place.
    pub path: String,
    /// Bytes that are free, or why that is not known.
    pub free: Result<u64, String>,
    /// Below this many there is a warning.
    pub enough: u64,
}

const MIB: u64 = 1 << 20;

/// A queue between vLLM's processes: ten parts of 24 MiB (0.32,
/// `distributed/device_communicators/shm_broadcast.py`, `MessageQueue`, which wants so much to be free).
const QUEUE_BYTES: u64 = 240 * MIB;

/// As many as vLLM tries to have (0.32, `utils/system_utils.py`, `set_ulimit`).
const OPEN_FILES: u64 = 65_535;

/// Judges the machine for what is asked of vLLM.
pub fn judge_host(facts: &HostFacts, plan: &Plan) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    findings.extend(facts.shared_memory.as_ref().map(|free| shared_memory(free, plan)));
    findings.push(open_files(facts.open_files));
    findings.extend(facts.disks.iter().map(judge_disk));
    findings.push(compiler(facts.compiler.as_deref(), plan));
    findings
}

fn shared_memory(free: &Result<u64, String>, plan: &Plan) -> Finding {
    let assessment = match free {
        Err(why) => Assessment::Unknown(format!("/dev/shm: {why}")),
        Ok(free) if *free < QUEUE_BYTES && plan.workers > 1 => Assessment::Warning(format!(
            "{} MiB are free in /dev/shm, and vLLM wants {} MiB for each queue between its processes; give \
             a container more (`--shm-size`, or `--ipc=host`)",
            free / MIB,
            QUEUE_BYTES / MIB
        )),
        Ok(free) => Assessment::Fine(format!("{} MiB are free in /dev/shm", free / MIB)),
    };
    Finding::new(Subject::SharedMemory, assessment)
}

fn open_files(limit: Option<u64>) -> Finding {
    let assessment = match limit {
        Some(limit) if limit < OPEN_FILES => Assessment::Warning(format!(
            "vLLM may have {limit} files open, and wants {OPEN_FILES}: requests may fail for it; raise the \
             limit (`ulimit -n`, LimitNOFILE=)"
        )),
        Some(limit) => Assessment::Fine(format!("vLLM may have {limit} files open")),
        None => Assessment::Fine("vLLM may have any number of files open".to_owned()),
    };
    Finding::new(Subject::OpenFiles, assessment)
}

/// Judges the room in a place.
pub fn judge_disk(disk: &Disk) -> Finding {
    let Disk { purpose, path, free, enough } = disk;
    let assessment = match free {
        Err(why) => Assessment::Unknown(format!("{purpose}, {path}: {why}")),
        Ok(free) if free < enough => Assessment::Warning(format!(
            "{} MiB are free for {purpose} at {path}, and {} MiB are soon needed",
            free / MIB,
            enough / MIB
        )),
        Ok(free) => {
            Assessment::Fine(format!("{} MiB are free for {purpose} at {path}", free / MIB))
        }
    };
    Finding::new(Subject::Disk, assessment)
}

fn compiler(found: Option<&str>, plan: &Plan) -> Finding {
    let assessment = match found {
        Some(path) => Assessment::Fine(path.to_owned()),
        None if plan.eager => {
            Assessment::Fine("none; with --enforce-eager vLLM may do without".to_owned())
        }
        None => Assessment::Warning(
            "there is no C compiler on the PATH (gcc, clang, or CC), and vLLM compiles kernels with one; \
             install one (`apt install gcc g++`), or give `--enforce-eager`, with which fewer are compiled"
                .to_owned(),
        ),
    };
    Finding::new(Subject::Compiler, assessment)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worst(facts: &HostFacts, plan: &Plan) -> Vec<(Subject, String)> {
        let judged = judge_host(facts, plan).into_iter();
        let wrong = judged.filter_map(|finding| match finding.assessment {
            Assessment::Warning(said) | Assessment::Unknown(said) => Some((finding.subject, said)),
            Assessment::Fine(_) => None,
            Assessment::Fatal(cause) => panic!("{cause}"),
        });
        wrong.collect()
    }

    fn whole() -> HostFacts {
        HostFacts {
            shared_memory: Some(Ok(QUEUE_BYTES)),
            open_files: Some(OPEN_FILES),
            disks: vec![disk_with(Ok(MIB))],
            compiler: Some("/usr/bin/cc".to_owned()),
        }
    }

    fn disk_with(free: Result<u64, String>) -> Disk {
        Disk { purpose: "logs", path: "/state".to_owned(), free, enough: MIB }
    }

    #[test]
    fn a_machine_with_enough_of_everything_has_nothing_against_it() {
        assert_eq!(worst(&whole(), &Plan { workers: 8, ..Plan::default() }), []);
        assert_eq!(worst(&HostFacts { open_files: None, ..whole() }, &Plan::default()), []);
    }

    #[test]
    fn each_thing_that_is_scarce_is_told_with_how_much_there_is() {
        let two = Plan { workers: 2, ..Plan::default() };
        let cases = [
            (HostFacts { shared_memory: Some(Ok(64 * MIB)), ..whole() }, "64 MiB"),
            (HostFacts { shared_memory: Some(Err("denied".into())), ..whole() }, "denied"),
            (HostFacts { open_files: Some(1024), ..whole() }, "1024"),
            (HostFacts { disks: vec![disk_with(Ok(MIB - 1))], ..whole() }, "0 MiB"),
            (HostFacts { disks: vec![disk_with(Err("gone".into()))], ..whole() }, "gone"),
            (HostFacts { compiler: None, ..whole() }, "gcc"),
        ];
        for (facts, part) in cases {
            let [(_, said)] = &worst(&facts, &two)[..] else { panic!("{facts:?}") };
            assert!(said.contains(part), "{said}");
        }
    }

    #[test]
    fn what_is_not_needed_may_be_scarce() {
        let facts = HostFacts { shared_memory: Some(Ok(0)), compiler: None, ..whole() };
        let plan = Plan { workers: 1, eager: true, ..Plan::default() };
        assert_eq!(worst(&facts, &plan), []);
    }
}
