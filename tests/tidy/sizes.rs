//! How long things may get: a file past its limit holds two things, a function past a screen does.

use crate::rule::assert_none;
use crate::source::Source;
use crate::workspace;

/// Lines of any Rust file, with everything in it.
const WHOLE_FILE: usize = 500;

/// Lines of a shipped file without the tests in it.
const WITHOUT_TESTS: usize = 400;

/// Lines of a shipped function, from `fn` to its closing brace.
const FUNCTION: usize = 60;

fn is_shipped(source: &Source) -> bool {
    source.path.starts_with("src/") || source.path.starts_with("actors/src/")
}

/// What is longer than it may be in this file.
fn too_long(source: &Source) -> Vec<String> {
    let whole = source.text.lines().count();
    let mut found = Vec::new();
    let mut judge = |line: usize, what: &str, length: usize, limit: usize| {
        if length > limit {
            found.push(format!("{}:{line}: {what} has {length} lines, not {limit}", source.path));
        }
    };
    judge(1, "the file", whole, WHOLE_FILE);
    if is_shipped(source) {
        judge(1, "the file without its tests", whole - lines_of_tests(source), WITHOUT_TESTS);
        for function in functions(source) {
            judge(function.line, &function.name, function.length, FUNCTION);
        }
    }
    found
}

/// Lines of the modules `tests` that stand in the file.
fn lines_of_tests(source: &Source) -> usize {
    let modules = source.places_of(&["mod", "tests", "{"]);
    modules.into_iter().map(|at| lines_between(source, at, source.closing(at + 2))).sum()
}

fn lines_between(source: &Source, first: usize, last: usize) -> usize {
    let last = last.min(source.tokens.len() - 1);
    source.line(last) - source.line(first) + 1
}

struct Function {
    name: String,
    line: usize,
    length: usize,
}

/// Every function that has a body.
fn functions(source: &Source) -> Vec<Function> {
    let starts = source.places_of(&["fn"]).into_iter().filter(|at| source.word(at + 1) != "(");
    let functions = starts.filter_map(|start| {
        let open = body(source, start)?;
        let length = lines_between(source, start, source.closing(open));
        Some(Function { name: source.word(start + 1).to_owned(), line: source.line(start), length })
    });
    functions.collect()
}

/// The brace that opens the body of the function at `start`; none for one that is only declared.
fn body(source: &Source, start: usize) -> Option<usize> {
    let mut at = start;
    while at < source.tokens.len() {
        match source.word(at) {
            "{" => return Some(at),
            ";" => return None,
            // Parameters and array types may hold braces and semicolons of their own.
            "(" | "[" => at = source.closing(at) + 1,
            _ => at += 1,
        }
    }
    None
}

#[test]
fn nothing_is_too_long() {
    let found: Vec<String> = workspace::sources().iter().flat_map(too_long).collect();
    assert_none(&found);
}

fn complaints(path: &str, text: &str) -> usize {
    too_long(&Source::new(path, text)).len()
}

#[test]
fn a_file_past_its_limit_is_found() {
    assert_eq!(complaints("tests/src/x.rs", &"\n".repeat(501)), 1);
    assert_eq!(complaints("tests/src/x.rs", &"\n".repeat(500)), 0);
    assert_eq!(complaints("src/x.rs", &"\n".repeat(401)), 1);
}

#[test]
fn tests_in_a_file_do_not_count_as_its_own_lines() {
    let tests = format!("#[cfg(test)]\nmod tests {{{}}}\n", "\n".repeat(50));
    assert_eq!(complaints("src/x.rs", &format!("{}{tests}", "\n".repeat(380))), 0);
    assert_eq!(complaints("src/x.rs", &format!("{}{tests}", "\n".repeat(400))), 1);
}

#[test]
fn a_function_past_its_limit_is_found_wherever_it_stands() {
    for start in
        ["fn f() {", "impl X { async fn f<T>(self: [u8; 3]) -> [T; 2] {", "mod y { fn f() {"]
    {
        assert_eq!(complaints("src/x.rs", &format!("{start}{}}}", "\n".repeat(60))), 1, "{start}");
        assert_eq!(complaints("src/x.rs", &format!("{start}{}}}", "\n".repeat(59))), 0, "{start}");
    }
}

#[test]
fn a_function_without_a_body_has_no_length() {
    let text = format!("trait X {{ fn f(a: fn()); {} }}", "\n".repeat(70));
    assert_eq!(complaints("src/x.rs", &text), 0);
}
