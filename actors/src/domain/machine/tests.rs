//! The machine, shown four ways: every input in every situation (`table`), the stories that matter
//! by name (`crashing`, `exits`, `outage`, `stopping`, `loading`, `switching`, `adopting`, `trusting`),
//! what holds after anything whatever (`properties`), and everything that can be reached (`exploration`).

mod adopting;
mod answers;
mod blocked;
mod cases;
mod crashing;
mod diagnosing;
mod ending;
mod exits;
mod exploration;
mod gpus;
mod loading;
mod losing;
mod losing_its_engine;
mod outage;
mod properties;
mod script;
mod standing_still;
mod stopping;
mod switching;
mod table;
mod trusting;
mod vitals;
mod world;
