//! The command `vllmd`; everything is in [`vllm_supervisor::cli`].

fn main() -> std::process::ExitCode {
    vllm_supervisor::cli::run()
}
