from __future__ import annotations
import numpy as np, pytest, torch, time
from pathlib import Path
from mpk_ir.compiler import compile_step
from mpk_ir.core.target import SIM
from mpk_ir.frontend import StepOptions
from mpk_ir.bench.reference import Decoder
from mpk_ir.bench.shapes import random_weights
from mpk_ir.executable import Executable
from tests.codegen.models import family_config
from tests.emulation.gpu import executor, install

@pytest.fixture
def gpu(tmp_path_factory, monkeypatch):
    return install(monkeypatch, tmp_path_factory.getbasetemp() / "emulated")

@pytest.mark.parametrize("family", ["qwen3","qwen2","llama3"])
@pytest.mark.parametrize("rows,lengths", [(72,(70,33)),(136,(150,60)), (260,(300,3))])
def test_prefill(gpu, family, rows, lengths):
    from dataclasses import replace; config = replace(family_config(family), hidden_size=256); weights = random_weights(config, "cpu", 1)
    o = StepOptions(batch=2, rows=rows, max_length=320, page_size=16, last_rows=True)
    program = compile_step(config, SIM, o).program
    subject = Executable(program, executor(program, weights), None)
    prompts=[[int(x) for x in np.random.RandomState(1).randint(0,1000,n)] for n in lengths]
    t=time.time(); found = subject.generate(prompts, 2); print("secs", time.time()-t, found.tokens)
    exact, rounded = Decoder(config, {n: t.float() for n,t in weights.items()}), Decoder(config, weights)
    for r, (p, new) in enumerate(zip(prompts, found.tokens)):
        tokens = torch.tensor(p+new[:-1])[None]
        caches=[]
        for d in (exact, rounded):
            c=d.cache(1,tokens.shape[1])
            with torch.inference_mode(): l=d.forward(tokens, torch.arange(tokens.shape[1]), c)[0]
            caches.append((c,l))
        print("tokens", new, caches[0][1][-2:].argmax(-1).tolist())
        pages=subject.engine.read_state("page_table")[r]
        for layer in range(config.num_layers):
            for name, attr in (("k_cache","keys"),("v_cache","values")):
                mine=subject.engine.read_state(f"{name}.{layer}")[pages].transpose(1,0,2,3).reshape(config.num_kv_heads,-1,config.head_dim)[:, :tokens.shape[1]]
                want=getattr(caches[0][0],attr)[layer,0].float().numpy(); bf=getattr(caches[1][0],attr)[layer,0].float().numpy()
                e=np.linalg.norm(mine-want,axis=(0,2))/np.linalg.norm(want,axis=(0,2)); eb=np.linalg.norm(bf-want,axis=(0,2))/np.linalg.norm(want,axis=(0,2))
                print(r,layer,name,e.mean(),e.max(),eb.mean(),eb.max())
                assert e.mean() <= 1.2*eb.mean() + 1e-6
