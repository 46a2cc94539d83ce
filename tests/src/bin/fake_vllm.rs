//! A stand-in for the `vllm` command; see [`vllm_supervisor_tests::fake_vllm`].

fn main() -> std::process::ExitCode {
    vllm_supervisor_tests::fake_vllm::run()
}
