//! The command `vllmd` under a name that the tests of this package can ask Cargo for.

fn main() -> std::process::ExitCode {
    vllm_supervisor::cli::run()
}
