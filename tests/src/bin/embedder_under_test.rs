//! A program that embeds a supervisor and does as it is told; see
//! [`vllm_supervisor_tests::chaos::embedder`].

fn main() -> std::process::ExitCode {
    vllm_supervisor_tests::chaos::embedder::run()
}
