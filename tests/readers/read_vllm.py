"""In an environment with vLLM: an engine of each folder given answers."""

import os
import sys

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}

from vllm import LLM, SamplingParams, TokensPrompt


def main() -> None:
    for folder in sys.argv[1:]:
        engine = LLM(folder, dtype="float32", enforce_eager=True, max_model_len=64, max_num_seqs=2)
        prompt = TokensPrompt(prompt_token_ids=list(range(3, 20)))
        (answer,) = engine.generate([prompt], SamplingParams(max_tokens=4, temperature=0))
        assert len(answer.outputs[0].token_ids) > 0, folder
        del engine
        print("read", folder)


if __name__ == "__main__":
    main()
