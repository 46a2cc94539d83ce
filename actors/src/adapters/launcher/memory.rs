//! What is kept of launches that are made alike: by the same words and variables, with the same build of
//! vLLM, by this version of ours.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::adapters::state_directory::StateDirectory;
use crate::adapters::vllm_packages::distributions;
use crate::domain::course::Course;
use crate::domain::trust::{LaunchMethod, Memories, Memory, Recall};

/// The file in the state directory.
const FILE: &str = "launches.json";

/// Configurations that are kept; the one that was not heard of for longest goes first.
const MOST: usize = 64;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct LaunchMemory {
    state: Arc<StateDirectory>,
}

/// Launches that are made alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Likes {
    settings: Vec<String>,
    /// The packages of vLLM, and when they were installed.
    vllm: Vec<String>,
    /// Our version.
    vllmd: String,
}

impl Likes {
    /// Of these words and variables, run by this Python, if that is known.
    pub(super) fn new(settings: Vec<String>, python: Option<&Path>) -> Self {
        let vllm = python.map(packages).unwrap_or_default();
        Self { settings, vllm, vllmd: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

#[derive(Debug)]
struct Entry {
    of: Likes,
    at_most: LaunchMethod,
    completion: Option<String>,
    is_comparable: bool,
    courses: Courses,
}

/// What is known of launches that are made alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// The most that may be forked.
    pub(super) at_most: LaunchMethod,
    /// What they make of the fixed prompt.
    pub(super) recall: Recall,
    courses: Courses,
}

/// The course of the last load, by how it was made.
type Courses = BTreeMap<LaunchMethod, Course>;

impl Known {
    /// That nothing is, and nothing is to be found out.
    pub(super) fn nothing() -> Self {
        let (at_most, courses) = (LaunchMethod::Ahead, Courses::new());
        Self { at_most, recall: Recall::NotCompared, courses }
    }

    /// What is known of one that was made so.
    pub(super) fn of(&self, method: LaunchMethod) -> Memories {
        Memories { recall: self.recall.clone(), course: self.courses.get(&method).cloned() }
    }
}

impl Entry {
    fn new(of: Likes) -> Self {
        let (at_most, courses) = (LaunchMethod::Ahead, Courses::new());
        Self { of, at_most, completion: None, is_comparable: true, courses }
    }

    fn has_courses_alone(&self) -> bool {
        self.at_most == LaunchMethod::Ahead && self.completion.is_none() && self.is_comparable
    }

    fn of_json(json: &Value) -> Option<Self> {
        let texts = |name: &str| -> Option<Vec<String>> {
            let texts = json[name].as_array()?.iter();
            texts.map(|text| text.as_str().map(str::to_owned)).collect()
        };
        let text = |name: &str| json[name].as_str().map(str::to_owned);
        let of =
            Likes { settings: texts("settings")?, vllm: texts("vllm")?, vllmd: text("vllmd")? };
        let limit = text("limit");
        let is_limit = |method: &LaunchMethod| limit.as_deref() == Some(method.as_str());
        Some(Self {
            at_most: LaunchMethod::ALL.into_iter().find(is_limit).unwrap_or(LaunchMethod::Ahead),
            completion: text("completion"),
            is_comparable: json["is_comparable"].as_bool()?,
            courses: courses_of(&json["courses"]),
            of,
        })
    }

    fn json(&self) -> Value {
        json!({
            "settings": self.of.settings,
            "vllm": self.of.vllm,
            "vllmd": self.of.vllmd,
            // None, for those that nothing speaks against: there may be more to be forked some day.
            "limit": (self.at_most < LaunchMethod::Ahead).then(|| self.at_most.as_str()),
            "completion": self.completion,
            "is_comparable": self.is_comparable,
            "courses": self.courses.iter().map(|(method, course)| (method.as_str(), json_of(course))).collect::<BTreeMap<_, _>>(),
        })
    }
}

impl LaunchMemory {
    pub(super) fn in_directory(state: Arc<StateDirectory>) -> Self {
        Self { state }
    }

    /// What is known of such launches.
    pub(super) fn recall(&self, of: &Likes) -> Known {
        let known = self.entries().into_iter().find(|entry| entry.of == *of);
        let entry = known.unwrap_or_else(|| Entry::new(of.clone()));
        let is_compared = entry.is_comparable && entry.at_most > LaunchMethod::Cold;
        let recall = match entry.completion {
            _ if !is_compared => Recall::NotCompared,
            Some(text) => Recall::Completion(text),
            None => Recall::Nothing,
        };
        Known { at_most: entry.at_most, recall, courses: entry.courses }
    }

    pub(super) fn keep(&self, of: Likes, memory: &Memory) {
        let mut entries = self.entries();
        let known = entries.iter().position(|entry| entry.of == of).map(|at| entries.remove(at));
        let mut entry = known.unwrap_or_else(|| Entry::new(of));
        match memory {
            Memory::AtMost(method) => entry.at_most = *method,
            Memory::Completion(text) => entry.completion = Some(text.clone()),
            Memory::NotComparable => entry.is_comparable = false,
            Memory::Course(method, course) => {
                entry.courses.insert(*method, course.clone());
            }
        }
        entries.push(entry);
        while entries.len() > MOST {
            // What is learnt anew by the next load goes first.
            let dispensable = entries.iter().position(Entry::has_courses_alone).unwrap_or(0);
            entries.remove(dispensable);
        }
        if let Err(error) = self.write(&entries) {
            tracing::warn!(%error, "what launches have come to cannot be kept");
        }
    }

    /// What cannot be read is found out anew: a launch that is to blame will fail once more.
    fn entries(&self) -> Vec<Entry> {
        let read = fs::read(self.path()).and_then(|text| Ok(serde_json::from_slice(&text)?));
        let json: Value = match read {
            Ok(json) => json,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                tracing::warn!(%error, "what launches have come to cannot be read");
                return Vec::new();
            }
        };
        json.as_array().into_iter().flatten().filter_map(Entry::of_json).collect()
    }

    fn write(&self, entries: &[Entry]) -> io::Result<()> {
        let part = self.path().with_extension("part");
        let json: Vec<Value> = entries.iter().map(Entry::json).collect();
        fs::write(&part, serde_json::to_vec(&json)?)?;
        fs::rename(part, self.path())
    }

    fn path(&self) -> PathBuf {
        self.state.path().join(FILE)
    }
}

/// Percentages, with milliseconds.
fn json_of(course: &Course) -> Value {
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let marks = course.marks().iter().map(|(percent, at)| json!([percent, milliseconds(*at)]));
    json!({ "marks": marks.collect::<Vec<_>>(), "total_ms": milliseconds(course.total()) })
}

fn courses_of(json: &Value) -> Courses {
    let course = |method: LaunchMethod| {
        let json = &json[method.as_str()];
        let marks = json["marks"].as_array()?.iter().map(|mark| {
            let percent = u8::try_from(mark[0].as_u64()?).ok()?;
            Some((percent, Duration::from_millis(mark[1].as_u64()?)))
        });
        let total = Duration::from_millis(json["total_ms"].as_u64()?);
        Some((method, Course::new(marks.collect::<Option<_>>()?, total)?))
    };
    LaunchMethod::ALL.into_iter().filter_map(course).collect()
}

/// The packages of vLLM that this Python has, each with the time at which it was installed: an upgrade
/// is another.
pub(super) fn packages(python: &Path) -> Vec<String> {
    let libraries = python.parent().and_then(Path::parent).map(|root| root.join("lib"));
    let inside = |directory: PathBuf| fs::read_dir(directory).into_iter().flatten().flatten();
    let versions = libraries.into_iter().flat_map(inside).map(|it| it.path());
    let packages = versions.flat_map(|it| [it.join("site-packages"), it.join("dist-packages")]);
    let mut found: Vec<String> = packages
        .flat_map(|packages| distributions(&packages).collect::<Vec<_>>())
        .map(|(entry, name)| format!("{name} {}", changed(&entry.path())))
        .collect();
    found.sort();
    found
}

fn changed(path: &Path) -> u128 {
    let modified = fs::metadata(path).and_then(|data| data.modified()).ok();
    modified.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map_or(0, |since| since.as_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn likes(word: &str, python: &Path) -> Likes {
        Likes::new(vec![word.to_owned()], Some(python))
    }

    #[test]
    fn each_configuration_has_its_own_memory_until_vllm_changes() {
        let place = tempfile::tempdir().unwrap();
        let package = place.path().join("lib/python3.12/site-packages/vllm-1.dist-info");
        fs::create_dir_all(&package).unwrap();
        let python = place.path().join("bin/python");
        let state = Arc::new(StateDirectory::open(&place.path().join("state")).unwrap());
        let memory = LaunchMemory::in_directory(Arc::clone(&state));
        let known = |of| {
            let known = LaunchMemory::in_directory(Arc::clone(&state)).recall(&of);
            (known.at_most, known.recall)
        };
        let nothing = (LaunchMethod::Ahead, Recall::Nothing);
        assert_eq!(known(likes("a", &python)), nothing);

        memory.keep(likes("a", &python), &Memory::Completion("x".to_owned()));
        memory.keep(likes("a", &python), &Memory::AtMost(LaunchMethod::Front));
        memory.keep(likes("b", &python), &Memory::NotComparable);

        let learnt = (LaunchMethod::Front, Recall::Completion("x".to_owned()));
        assert_eq!(known(likes("a", &python)), learnt);
        assert_eq!(known(likes("b", &python)), (LaunchMethod::Ahead, Recall::NotCompared));
        memory.keep(likes("a", &python), &Memory::AtMost(LaunchMethod::Cold));
        assert_eq!(known(likes("a", &python)), (LaunchMethod::Cold, Recall::NotCompared));
        fs::create_dir(package.with_file_name("vllm-2.dist-info")).unwrap();
        assert_eq!(known(likes("a", &python)), nothing);
    }

    #[test]
    fn each_way_to_launch_has_a_course_of_its_own() {
        let place = tempfile::tempdir().unwrap();
        let state = Arc::new(StateDirectory::open(&place.path().join("state")).unwrap());
        let memory = LaunchMemory::in_directory(state);
        let of = || Likes::new(vec!["a".to_owned()], None);
        let course = |total| {
            let total = Duration::from_millis(total);
            Course::new(vec![(2, Duration::ZERO), (55, total)], total).unwrap()
        };
        memory.keep(of(), &Memory::Course(LaunchMethod::Cold, course(9000)));
        memory.keep(of(), &Memory::Course(LaunchMethod::Ahead, course(1234)));
        memory.keep(of(), &Memory::Course(LaunchMethod::Cold, course(8000)));
        let known = memory.recall(&of());
        assert_eq!(known.of(LaunchMethod::Cold).course, Some(course(8000)));
        assert_eq!(known.of(LaunchMethod::Ahead).course, Some(course(1234)));
        assert_eq!(known.of(LaunchMethod::Tree).course, None);
    }

    #[test]
    fn a_spoiled_file_is_forgotten_and_only_so_many_are_kept() {
        let place = tempfile::tempdir().unwrap();
        let state = Arc::new(StateDirectory::open(&place.path().join("state")).unwrap());
        let memory = LaunchMemory::in_directory(state);
        fs::write(memory.path(), "not JSON").unwrap();
        let of = |number: usize| likes(&number.to_string(), Path::new("/nowhere/bin/python"));
        assert_eq!(memory.recall(&of(0)).at_most, LaunchMethod::Ahead);
        for number in 0..=MOST {
            memory.keep(of(number), &Memory::AtMost(LaunchMethod::Front));
        }
        assert_eq!(memory.recall(&of(0)).at_most, LaunchMethod::Ahead);
        assert_eq!(memory.recall(&of(1)).at_most, LaunchMethod::Front);
        let course = Course::new(vec![(2, Duration::ZERO)], Duration::from_secs(1)).unwrap();
        for number in 100..102 {
            memory.keep(of(number), &Memory::Course(LaunchMethod::Cold, course.clone()));
        }
        assert_eq!(memory.recall(&of(2)).at_most, LaunchMethod::Front, "it was hard to learn");
    }
}
