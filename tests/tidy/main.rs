//! The rules of the house, kept true: who may name whom, what is documented, which words are used,
//! and how long things get. They are read off the source text; nothing is compiled.

mod arrows;
mod documentation;
mod growth;
mod paths;
mod proofs;
mod rule;
mod sizes;
mod source;
mod twins;
mod unit;
mod words;
mod workspace;
