"""Sources of the methods, as BibTeX."""

from __future__ import annotations

SOURCES = r"""
@inproceedings{chen2024accelerating,
  title     = {Accelerating Diffusion Models with Parallel Sampling: Inference at Sub-Linear Time Complexity},
  author    = {Chen, Haoxuan and Ren, Yinuo and Ying, Lexing and Rotskoff, Grant M.},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {37},
  year      = {2024},
  note      = {arXiv:2405.15986. PIADM-SDE and PIADM-ODE: blocks of Picard sweeps.}
}

@inproceedings{shih2023parallel,
  title     = {Parallel Sampling of Diffusion Models},
  author    = {Shih, Andy and Belkhale, Suneel and Ermon, Stefano and Sadigh, Dorsa and Anari, Nima},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {36},
  year      = {2023},
  note      = {arXiv:2305.16317. ParaDiGMS: the sliding window.}
}

@inproceedings{zhou2025parallel,
  title     = {Parallel Simulation for Log-concave Sampling and Score-based Diffusion Models},
  author    = {Zhou, Huanjian and Sugiyama, Masashi},
  booktitle = {International Conference on Machine Learning},
  year      = {2025},
  note      = {arXiv:2412.07435. The wavefront.}
}

@inproceedings{hu2025autospeculation,
  title     = {Diffusion Models are Secretly Exchangeable: Parallelizing {DDPMs} via Auto Speculation},
  author    = {Hu, Hengyuan and Das, Aniket and Sadigh, Dorsa and Anari, Nima},
  booktitle = {International Conference on Machine Learning},
  year      = {2025},
  note      = {arXiv:2505.03983. Exact in law, drafts with a frozen prediction.}
}

@inproceedings{debortoli2025accelerated,
  title     = {Accelerated Diffusion Models via Speculative Sampling},
  author    = {De Bortoli, Valentin and Galashov, Alexandre and Gretton, Arthur and Doucet, Arnaud},
  booktitle = {International Conference on Machine Learning},
  year      = {2025},
  note      = {arXiv:2501.05370. Drafts verified by reflection coupling.}
}

@inproceedings{anari2024fast,
  title     = {Fast Parallel Sampling under Isoperimetry},
  author    = {Anari, Nima and Chewi, Sinho and Vuong, Thuy-Duong},
  booktitle = {Conference on Learning Theory},
  year      = {2024},
  note      = {arXiv:2401.09016. Parallel Langevin dynamics.}
}

@inproceedings{selvam2024self,
  title     = {Self-Refining Diffusion Samplers: Enabling Parallelization via Parareal Iterations},
  author    = {Selvam, Nikil Roashan and Merchant, Amil and Ermon, Stefano},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {37},
  year      = {2024},
  note      = {arXiv:2412.08292. SRDS.}
}

@inproceedings{han2025chords,
  title     = {{CHORDS}: Diffusion Sampling Accelerator with Multi-core Hierarchical {ODE} Solvers},
  author    = {Han, Jiaqi and Ye, Haotian and Li, Puheng and Xu, Minkai and Zou, James and Ermon, Stefano},
  booktitle = {International Conference on Computer Vision},
  year      = {2025},
  note      = {arXiv:2507.15260.}
}

@inproceedings{ho2020denoising,
  title     = {Denoising Diffusion Probabilistic Models},
  author    = {Ho, Jonathan and Jain, Ajay and Abbeel, Pieter},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {33},
  year      = {2020},
  note      = {arXiv:2006.11239. DDPM.}
}

@inproceedings{song2021denoising,
  title     = {Denoising Diffusion Implicit Models},
  author    = {Song, Jiaming and Meng, Chenlin and Ermon, Stefano},
  booktitle = {International Conference on Learning Representations},
  year      = {2021},
  note      = {arXiv:2010.02502. DDIM.}
}

@inproceedings{karras2022elucidating,
  title     = {Elucidating the Design Space of Diffusion-Based Generative Models},
  author    = {Karras, Tero and Aittala, Miika and Aila, Timo and Laine, Samuli},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {35},
  year      = {2022},
  note      = {arXiv:2206.00364. EDM: the Heun sampler and its grid.}
}

@article{lu2022dpmpp,
  title   = {{DPM-Solver++}: Fast Solver for Guided Sampling of Diffusion Probabilistic Models},
  author  = {Lu, Cheng and Zhou, Yuhao and Bao, Fan and Chen, Jianfei and Li, Chongxuan and Zhu, Jun},
  journal = {arXiv preprint arXiv:2211.01095},
  year    = {2022},
  note    = {DPM-Solver++ 2M and SDE-2M; 3M is in the authors' code.}
}

@inproceedings{zhao2023unipc,
  title     = {{UniPC}: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models},
  author    = {Zhao, Wenliang and Bai, Lujia and Rao, Yongming and Zhou, Jie and Lu, Jiwen},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {36},
  year      = {2023},
  note      = {arXiv:2302.04867. UniPC.}
}

@inproceedings{zhang2023deis,
  title     = {Fast Sampling of Diffusion Models with Exponential Integrator},
  author    = {Zhang, Qinsheng and Chen, Yongxin},
  booktitle = {International Conference on Learning Representations},
  year      = {2023},
  note      = {arXiv:2204.13902. DEIS.}
}

@inproceedings{li2024accelerating,
  title     = {Accelerating Convergence of Score-Based Diffusion Models, Provably},
  author    = {Li, Gen and Huang, Yu and Efimov, Timofey and Wei, Yuting and Chi, Yuejie and Chen, Yuxin},
  booktitle = {International Conference on Machine Learning},
  year      = {2024},
  note      = {arXiv:2403.03852. Accelerated ODE and SDE samplers.}
}

@inproceedings{dockhorn2022genie,
  title     = {{GENIE}: Higher-Order Denoising Diffusion Solvers},
  author    = {Dockhorn, Tim and Vahdat, Arash and Kreis, Karsten},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {35},
  year      = {2022},
  note      = {arXiv:2210.05475. GENIE.}
}

@inproceedings{tang2024accelerating,
  title     = {Accelerating Parallel Sampling of Diffusion Models},
  author    = {Tang, Zhiwei and Tang, Jiasheng and Luo, Hao and Wang, Fan and Chang, Tsung-Hui},
  booktitle = {International Conference on Machine Learning},
  year      = {2024},
  note      = {arXiv:2402.09970. ParaTAA: triangular Anderson acceleration.}
}

@inproceedings{pokle2022deep,
  title     = {Deep Equilibrium Approaches to Diffusion Models},
  author    = {Pokle, Ashwini and Geng, Zhengyang and Kolter, J. Zico},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {35},
  year      = {2022},
  note      = {arXiv:2210.12867. The whole chain as one fixed point, with Anderson's method.}
}

@inproceedings{lu2025parasolver,
  title     = {{ParaSolver}: A Hierarchical Parallel Integral Solver for Diffusion Models},
  author    = {Lu, Jianrong and Zhu, Zhiyu and Hou, Junhui},
  booktitle = {International Conference on Learning Representations},
  year      = {2025},
  note      = {A sliding window after a few sequential steps.}
}

@inproceedings{lim2024parallelizing,
  title     = {Parallelizing Non-Linear Sequential Models over the Sequence Length},
  author    = {Lim, Yi Heng and Zhu, Qi and Selfridge, Joshua and Kasim, Muhammad Firmansyah},
  booktitle = {International Conference on Learning Representations},
  year      = {2024},
  note      = {arXiv:2309.12252. DEER: Newton's method for the whole chain.}
}

@inproceedings{danieli2023deeppcr,
  title     = {{DeepPCR}: Parallelizing Sequential Operations in Neural Networks},
  author    = {Danieli, Federico and Sarabia, Miguel and Suau, Xavier and Rodr{\'\i}guez, Pau and Zappella, Luca},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {36},
  year      = {2023},
  note      = {arXiv:2309.16318. Newton's method for chains of layers and of diffusion steps.}
}

@inproceedings{gonzalez2024towards,
  title     = {Towards Scalable and Stable Parallelization of Nonlinear {RNNs}},
  author    = {Gonzalez, Xavier and Warrington, Andrew and Smith, Jimmy T. H. and Linderman, Scott W.},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {37},
  year      = {2024},
  note      = {arXiv:2407.19115. Diagonal Jacobians (quasi-DEER) and damping (ELK).}
}

@inproceedings{zoltowski2025parallelizing,
  title     = {Parallelizing {MCMC} Across the Sequence Length},
  author    = {Zoltowski, David M. and Wu, Skyler and Gonzalez, Xavier and Kozachkov, Leo and Linderman, Scott W.},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2025},
  note      = {arXiv:2508.18413. Diagonals estimated with random signs.}
}

@inproceedings{gonzalez2025predictability,
  title     = {Predictability Enables Parallelization of Nonlinear State Space Models},
  author    = {Gonzalez, Xavier and Kozachkov, Leo and Zoltowski, David M. and Clarkson, Kenneth L. and
               Linderman, Scott W.},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2025},
  note      = {arXiv:2508.16817. Rounds of Newton's method and the largest Lyapunov exponent.}
}

@misc{paraflow2025,
  title = {{ParaFlow}: Parallel Sampling for Flow Matching Models},
  year  = {2025},
  note  = {Submission 4075 to ICLR 2026, withdrawn. A relaxed fixed point.},
  url   = {https://openreview.net/forum?id=4yk41o1EIc}
}

@article{wang2023hidden,
  title   = {The Hidden Linear Structure in Score-Based Models and its Application},
  author  = {Wang, Binxu and Vastola, John J.},
  journal = {arXiv preprint arXiv:2311.10892},
  year    = {2023},
  note    = {Scores at high noise are those of a Gaussian: calibrated guesses.}
}

@inproceedings{lipman2023flow,
  title     = {Flow Matching for Generative Modeling},
  author    = {Lipman, Yaron and Chen, Ricky T. Q. and Ben-Hamu, Heli and Nickel, Maximilian and Le, Matt},
  booktitle = {International Conference on Learning Representations},
  year      = {2023},
  note      = {arXiv:2210.02747. Flow form.}
}
""".strip()
