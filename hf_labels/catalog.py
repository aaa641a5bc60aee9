"""The table of methods: one row per published system. Data only; nothing else in the project lists methods.

`status="ready"` promises what the tests in `tests/matrix/` check: golden vectors, native on the stack, measured, safe
and explained. A `planned` row is a promise for later and exports nothing.
"""

from dataclasses import dataclass
from typing import Literal

PROBLEMS: dict[str, str] = {
    "noisy": "some labels are wrong",
    "crowd": "several annotators disagree",
    "few": "little or nothing is labelled",
    "chosen": "which label to buy next, which classes are new",
    "soft": "a teacher's labels",
    "mixed": "labels of blended examples",
    "multi": "several labels per example, some missing",
    "skewed": "long tails, for classes and for values",
    "pooled": "labels known only in bulk",
    "written": "labels and label spaces made by language models",
    "sequence": "labels that are token sequences",
    "self-made": "labels the model makes for its own pre-training",
}


@dataclass(frozen=True)
class Method:
    """One row of the catalog.

    Parameters:
        slug (`str`): The name of all files of the method.
        title (`str`): The name of the system in its paper.
        paper (`str`): arXiv id (`arXiv:2403.12468`) or the venue's own reference.
        year (`int`): Year of the first public version.
        problem (`str`): Key of `PROBLEMS`.
        consumes (`tuple[str, ...]`): Label kinds read (`hf_labels.labels.kinds.KINDS`); empty when no labels are read.
        produces (`str`): What the user holds at the end.
        summary (`str`): One sentence.
        public (`tuple[str, ...]`): Public names: `module:Name` below `hf_labels` when ready, bare names when planned.
        metrics (`tuple[str, ...]`): Metrics that its experiment reports.
        experiment (`str`): Real data of the small experiment.
        status (`str`): `"ready"` or `"planned"`.
    """

    slug: str
    title: str
    paper: str
    year: int
    problem: str
    consumes: tuple[str, ...]
    produces: str
    summary: str
    public: tuple[str, ...]
    metrics: tuple[str, ...]
    experiment: str
    status: Literal["ready", "planned"] = "planned"

    @property
    def url(self) -> str | None:
        """Address of the paper, when it is on arXiv."""
        kind, _, number = self.paper.partition(":")
        return f"https://arxiv.org/abs/{number}" if kind == "arXiv" else None


def _public(*groups: str) -> tuple[str, ...]:
    """`"module:One Two"` -> `"module:One", "module:Two"`."""
    parts = (group.partition(":") for group in groups)
    return tuple(f"{module}:{name}" for module, _, names in parts for name in names.split())


# Public parts that many methods share and that are useful alone: `module:Name` below `hf_labels`.
SHARED: tuple[str, ...] = (
    "data.soft_label_collator:SoftLabelCollator",
    "data.soft_label_store:SoftLabelStore",
    "hub_cards:render_card",
    "labels.kinds:check_column",
    "labels.kinds:convert_column",
    "labels.verbalize:LabelSpace",
    "losses.soft_targets:soft_cross_entropy",
    "metrics:make_calibration_metrics",
    "metrics:multilabel_metrics",
    "mixing.collator:MixCollator",
    "mixing.labels:MixedLabels",
    "mixing.sampler:MixSampler",
    "trainers.base:LabelTrainer",
    "trainers.soft_labels:SoftLabelTrainer",
    "trainers.soft_labels:SoftLabelTrainingArguments",
)

# fmt: off
METHODS: tuple[Method, ...] = (
    Method("confident_learning", "Pervasive Label Errors / Confident Learning", "arXiv:2103.14749", 2021, "noisy",
        ("hard", "multi"), "label tool", "Finds and ranks wrong labels from out-of-sample probabilities.",
        _public("labels.benchmark_stability:CheckedTestSet benchmark_stability",
            "labels.confident_learning:ConfidentLearning find_label_issues",
            "labels.label_quality:ensemble_label_quality label_quality", "trainers.cross_fit:cross_fit"),
        ("precision", "recall", "auprc"), "published human verdicts on CIFAR, MNIST and 20news test sets",
        status="ready"),
    Method("llm_label_errors", "Are LLMs Better than Reported?", "arXiv:2410.18889", 2024, "noisy", ("hard",),
        "label tool", "Language models judge existing labels; flagged rows are filtered, flipped or re-annotated.",
        _public("labels.issues:LabelIssues", "labels.llm_label_errors:LabelErrorReport",
            "lm.llm_label_errors:LabelErrorDetector"), ("precision", "recall", "fleiss_kappa"),
        "drug reviews with planted errors", status="ready"),
    Method("compress_features", "Compressing Features (Nested Dropout + Co-teaching)", "arXiv:2206.13140", 2022,
        "noisy", ("hard",), "trainer",
        "Nested dropout orders the features, two such networks choose clean examples for each other.",
        ("NestedDropoutTrainer", "CoTeachingTrainer", "CoTeachingPair"), ("accuracy", "selection_precision"),
        "Fashion-MNIST with asymmetric noise"),
    Method("capro", "CAPro: cross-modality aligned prototypes", "arXiv:2310.09761", 2023, "noisy", ("hard", "text"),
        "model and trainer", "Class definitions choose clean anchors; prototypes clean web labels during training.",
        ("CAProTrainer", "CAProModel", "match_text"), ("accuracy", "f1"), "BBC news with wrong-sense labels"),
    Method("spl", "Sub-Pseudo Labels", "arXiv:2101.03713", 2021, "noisy", ("hard",), "label tool",
        "Splits query labels by a teacher's opinion and trains on the finer classes.",
        ("SPLLabelSpace", "sub_pseudo_labels"), ("accuracy",), "Fashion-MNIST with query noise"),
    Method("crowd_soft_labels", "Aggregating Soft Labels from Crowd Annotations", "arXiv:2212.09409", 2022, "crowd",
        ("crowd",), "label tool and trainer",
        "Aggregates annotators with many models and averages them into soft labels.",
        _public("labels.crowd:CrowdAnnotations", "labels.crowd_soft_labels:CrowdLabels aggregate_annotations",
            "losses.crowd_soft_labels:multi_task_loss soft_label_loss",
            "trainers.crowd_soft_labels:CrowdLabelTrainer CrowdLabelTrainingArguments"),
        ("nll", "ece", "accuracy"), "bluebirds, ducks and anesthetists crowds", status="ready"),
    Method("crosstune", "CrossTune: black-box few-shot classification with label enhancement", "arXiv:2403.12468",
        2024, "few", ("hard", "text"), "model and trainer",
        "A cross-attention head matches frozen text features with label descriptions.",
        _public("models.crosstune:CrossTuneConfig CrossTuneForSequenceClassification",
            "trainers.crosstune:CrossTuneTrainer CrossTuneTrainingArguments"),
        ("accuracy", "f1", "ece"), "drug reviews and BBC news, 2 to 16 texts per class", status="ready"),
    Method("unsupervised_prompt_learning", "Unsupervised Prompt Learning for Black-box LMs", "arXiv:2410.03124", 2024,
        "few", ("text",), "label tool",
        "Learns prompt tokens and pseudo-labels together from unlabelled text, without gradients of the model.",
        _public("lm.unsupervised_prompt_learning:UnsupervisedPromptLearner UnsupervisedPromptLearningArguments",
            "models.unsupervised_prompt_learning:PromptClassifier PromptDistribution"),
        ("accuracy", "pseudo_label_quality"), "drug reviews, with a random-prompt control", status="ready"),
    Method("zero_shot_tc", "Benchmarking Zero-shot Text Classification", "arXiv:1909.00161", 2019, "few", ("text",),
        "pipeline, trainer and metrics",
        "Topic, emotion and situation as entailment, with label-partially and fully unseen settings.",
        _public("data.offline_wordnet:load_wordnet",
            "data.zero_shot_tc:build_zero_shot_task entailment_pairs read_benchmark_file",
            "data.zero_shot_tc_hypotheses:wordnet_hypotheses", "labels.zero_shot_tc:DecisionRule",
            "models.zero_shot_tc:HypothesisZeroShotPipeline classify_with_ensemble",
            "models.zero_shot_tc_pairs:PairEncoderConfig PairEncoderForSequenceClassification",
            "trainers.zero_shot_tc:EntailmentTrainer EntailmentTrainingArguments"),
        ("zero_shot_accuracy", "zero_shot_f1"), "drug reviews and BBC news, WordNet definitions", status="ready"),
    Method("clip_pseudolabels", "Enhancing CLIP with CLIP (FPL, IFPL, GRIP)", "arXiv:2306.01669", 2023, "few",
        ("hard", "text"), "trainer and rounds", "Balanced pseudo-labels of CLIP train prompts for CLIP, in rounds.",
        ("CLIPPromptModel", "PseudoLabelPromptTrainer", "grip"), ("accuracy", "harmonic_mean_accuracy"),
        "emoji images across renderings"),
    Method("self_training_pretraining", "Predictions for Pre-training Language Models", "arXiv:2011.09031", 2020,
        "few", ("hard", "soft"), "pipeline", "A model's own predictions on raw text become a pre-training task.",
        ("SelfTrainingPipeline", "PseudoLabeler", "PseudoLabelTrainer"), ("accuracy",),
        "BBC news, small labelled part"),
    Method("name_tagging_metric", "Name Tagging under Domain Shift via Metric Learning", "arXiv:2401.10472", 2024,
        "few", ("sequence",), "trainer", "Contrastive terms keep source entities from being tagged as target types.",
        _public("losses.name_tagging_metric:MultiSimilarityLoss",
            "trainers.name_tagging_metric:EntityMetricTrainer EntityMetricTrainingArguments",
            "trainers.name_tagging_metric:pseudo_source_tags transfer_encoder"),
        ("entity_f1", "source_as_target_rate"), "sentences of scikit-learn's digits", status="ready"),
    Method("label_quantity_quality", "Balancing Label Quantity and Quality", "arXiv:2410.13215", 2024, "few",
        ("soft", "hard"), "trainer and planner", "Splits a budget between cheap weak labels and dear oracle labels.",
        ("LabelBudget", "LabelOracle", "SequentialSFTTrainer"), ("accuracy", "label_budget_frontier"),
        "drug reviews with simulated weak labels"),
    Method("fedlabel", "FedLabel: selective knowledge assimilation", "arXiv:2307.08809", 2023, "few", ("hard",),
        "Flower app and in-process engine", "Each client trusts its local or the global model per unlabelled sample.",
        ("FedLabelTrainer", "make_flower_apps"), ("accuracy",), "Fashion-MNIST over skewed clients"),
    Method("kg_zero_shot", "Zero-shot and Few-shot Learning with Knowledge Graphs", "arXiv:2112.10006", 2021, "few",
        ("hard", "text"), "models and metrics",
        "One strong method per paradigm: mapping, propagation, generation and graph embedding.",
        _public("data.kg_zero_shot:KnowledgeGraph", "models.kg_zero_shot:KGZeroShotClassifier",
            "models.kg_zero_shot_propagation:DGPModel", "models.kg_zero_shot_embedding:KGEmbeddingModel",
            "trainers.kg_zero_shot:KGEmbeddingTrainer KGEmbeddingTrainingArguments"),
        ("gzsl", "kg_ranking"), "WordNet with GloVe; UMLS and Kinships", status="ready"),
    Method("robust_active_distillation", "Robust Active Distillation", "arXiv:2210.01213", 2022, "chosen", ("soft",),
        "label tool and rounds",
        "Chooses which rows to ask an imperfect teacher about, by a game with a known optimum.",
        _public("labels.robust_active_distillation:RADSampler rad_distribution",
            "trainers.robust_active_distillation:ActiveDistillation"),
        ("accuracy", "wrong_query_rate"), "Fashion-MNIST with a teacher that errs", status="ready"),
    Method("active_outliers", "Training Ensembles with Inliers and Outliers", "arXiv:2307.03741", 2023, "chosen",
        ("hard",), "rounds", "Active learning in a pool full of outliers, which become a class of their own.",
        ("OutlierActiveLearner", "EnsembleForClassification"), ("accuracy", "active_learning_curve"),
        "Fashion-MNIST with MNIST outliers"),
    Method("active_gcd", "Active Generalized Category Discovery", "arXiv:2403.04272", 2024, "chosen", ("hard",),
        "rounds", "Asks for few labels to name classes that nobody listed.",
        ("GCDForImageClassification", "GCDActiveTrainer"), ("clustering_accuracy",),
        "emoji images, old and new categories"),
    Method("hello", "HeLlO: label space lightening", "arXiv:2408.08201", 2024, "soft", ("soft", "text"),
        "model and trainer", "A low-rank projector on CLIP makes soft labels on the fly instead of storing them.",
        _public("data.hello:distill_images", "data.hello_views:DistilledCollator",
            "models.hello:LabelProjector LabelProjectorConfig SameView",
            "models.hello_adapter:hello_lora_config load_projector save_projector",
            "trainers.hello:ProjectorTrainer ProjectorTrainingArguments weak_teachers"),
        ("accuracy", "label_storage_report"), "emoji images", status="ready"),
    Method("ferkd", "FerKD: surgical label adaptation", "arXiv:2312.17473", 2023, "soft", ("soft", "hard"), "trainer",
        "Sorts teacher labels of crops by confidence, repairs the middle and drops the extremes.",
        _public("data.ferkd:FerKDCalibrator calibration_report",
            "trainers.ferkd:FerKDTrainer FerKDTrainingArguments"),
        ("accuracy", "calibration_report"), "crops of MNIST digits on noise", status="ready"),
    Method("relabel", "Re-labeling ImageNet", "arXiv:2101.05022", 2021, "soft", ("soft",), "label maps and trainer",
        "Dense label maps of a teacher give every crop its own soft label.",
        _public("models.relabel:LabelMapAnnotator", "losses.label_pooling:label_pooling",
            "trainers.relabel:ReLabelTrainer ReLabelTrainingArguments"),
        ("accuracy", "real_accuracy"), "scenes of several MNIST digits", status="ready"),
    Method("distill_weighted", "DistillNearest and DistillWeighted", "arXiv:2304.12314", 2023, "soft",
        ("soft", "hard"), "trainer and tool",
        "Weights source models by how well their features fit the target labels.",
        _public("data.distill_weighted:Source SourceBank", "labels.linear_head:fit_linear_head",
            "labels.task_similarity:selection_correlation task_similarity",
            "losses.distill_weighted:mix_sources source_weights weighted_distillation_loss",
            "trainers.distill_weighted:WeightedDistillTrainer WeightedDistillTrainingArguments"),
        ("accuracy", "selection_correlation"), "emoji renderings as sources", status="ready"),
    Method("lad", "Label Assisted Distillation", "arXiv:2407.13254", 2024, "soft", ("hard",), "trainer",
        "A teacher that sees noised labels teaches segmentation to a student that does not.",
        _public("trainers.lad:CWDDistillTrainer LADTeacherTrainer LADTrainingArguments"),
        ("mean_iou",), "composed digit scenes", status="ready"),
    Method("sla", "Self-supervised Label Augmentation", "PMLR 119:5714-5724", 2020, "soft", ("hard",),
        "model and trainer", "Joint labels of class and transformation, aggregated or distilled into one head.",
        _public("models.sla:SLAConfig SLAForImageClassification", "trainers.sla:SLATrainer SLATrainingArguments"),
        ("accuracy",), "MNIST digits and Fashion-MNIST, 300 labels", status="ready"),
    Method("smmix", "SMMix: self-motivated image mixing", "arXiv:2212.12977", 2022, "mixed", ("hard",), "trainer",
        "The model's own attention chooses what to mix and how much each label counts.",
        ("SMMixTrainer", "SMMixTrainingArguments"), ("accuracy",), "Fashion-MNIST with a small ViT"),
    Method("decoupled_mixup", "Decoupled Mixup", "arXiv:2203.10761", 2022, "mixed", ("hard",), "loss and trainer",
        "Scores each of the two mixed classes with the other one removed.", ("DecoupledMixupLoss", "MixupTrainer"),
        ("accuracy", "ece"), "Fashion-MNIST"),
    Method("rankmixup", "RankMixup", "arXiv:2308.11990", 2023, "mixed", ("hard",), "trainer",
        "Confidence must rank with the mixing share, which calibrates the network.",
        ("RankMixupTrainer", "MixupRankingLoss", "MNDCGLoss"), ("ece", "aece", "accuracy"), "Fashion-MNIST"),
    Method("metrix", "Metrix: mixup for deep metric learning", "arXiv:2106.04990", 2021, "mixed", ("hard",),
        "sentence-transformers loss and trainer",
        "Mixed examples with interpolated positive and negative labels for metric learning.",
        ("MetrixLoss", "MetrixTrainer"), ("recall_at_k", "utilization"), "emoji and BBC news retrieval"),
    Method("supremix", "SupReMix: mixup your own pairs", "arXiv:2309.16633", 2023, "mixed", ("value",),
        "loss and trainer", "Mixed hard negatives and positives for contrastive regression.",
        ("SupReMixLoss", "SupReMixTrainer"), ("mae", "gmean"), "house prices and rotated digits"),
    Method("m3col", "M3CoL: multimodal mixup contrastive learning", "arXiv:2409.17777", 2024, "mixed", ("hard",),
        "model and loss", "Mixtures in one modality align with both partners in the other.",
        ("MultimodalMixupClassifier", "M3CoLTrainer"), ("accuracy", "f1"), "emoji images with names"),
    Method("plt_mlc", "COMIC: long-tailed, partial multi-label classification", "arXiv:2304.10539", 2023, "multi",
        ("multi",), "model and trainer", "Corrects missing labels while balancing head and tail classes.",
        ("ComicForMultiLabelClassification", "ComicTrainer"), ("multilabel_map",), "emoji keywords"),
    Method("pu_mlc", "PU-MLC: positive label is all you need", "arXiv:2306.16016", 2023, "multi", ("multi",),
        "loss and trainer", "Multi-label training from positives and unlabelled cells only.",
        ("PUMultiLabelLoss", "PUMultiLabelTrainer"), ("multilabel_map", "multilabel_f1"), "yeast and emoji keywords"),
    Method("patchct", "PatchCT: patch set and label set transport", "arXiv:2307.09066", 2023, "multi",
        ("multi", "text"), "model and loss", "Conditional transport aligns image patches with label embeddings.",
        ("PatchCTForImageClassification", "ConditionalTransportLoss"), ("multilabel_map", "multilabel_f1"),
        "emoji keywords"),
    Method("laso", "LaSO: label-set operations", "arXiv:1902.09811", 2019, "multi", ("multi",), "models and trainer",
        "Networks that make features for the union, intersection and difference of label sets.",
        ("LaSOModel", "LaSOTrainer"), ("label_set_retrieval", "multilabel_map"), "emoji keywords"),
    Method("kenet", "KeNet: knowledge-enhanced doc-label attention", "arXiv:2403.01767", 2024, "multi",
        ("multi", "text"), "model", "Labels attend to the document and to knowledge retrieved for it.",
        ("KeNetForSequenceClassification", "KnowledgeCollator"), ("micro_f1", "macro_f1", "precision_at_k"),
        "MovieLens titles and genres"),
    Method("lp_icp", "Label-powerset inductive conformal prediction", "arXiv:2312.09304", 2023, "multi", ("multi",),
        "label tool", "Exact conformal label sets for more than 1e16 label combinations.",
        _public("labels.lp_icp:LabelPowersetICP", "labels.lp_icp_prediction:LabelSetPrediction",
                "models.lp_icp:ConformalMultiLabelClassifier"),
        ("conformal_multilabel",), "films with genres and yeast genes", "ready"),
    Method("mlcd", "MLCD: multi-label cluster discrimination", "arXiv:2407.17331", 2024, "multi", ("multi",),
        "loss and trainer", "Trains on several cluster labels per image among up to a million centres.",
        ("MultiLabelClusterLoss", "ClusterDiscriminationTrainer"), ("knn_accuracy", "label_set_retrieval"),
        "emoji images"),
    Method("imbalanced_semi_self", "Rethinking the Value of Labels under Imbalance", "arXiv:2006.07529", 2020,
        "skewed", ("hard",), "trainer", "Pseudo-labels and self-supervision, both before any rule for long tails.",
        ("LongTailTrainer", "RotationPretrainer"), ("accuracy", "long_tail_accuracy"), "long-tailed Fashion-MNIST"),
    Method("conr", "ConR: contrastive regularizer for imbalanced regression", "ICLR 2024", 2024, "skewed", ("value",),
        "loss and trainer", "Pushes apart examples whose predictions are close and labels are far.",
        ("ConRLoss", "ConRTrainer", "lds_weights"), ("shot_regression",), "house prices"),
    Method("llp_bp", "Label proportions by belief propagation", "arXiv:2310.08056", 2023, "pooled", ("bag",),
        "label tool and rounds",
        "Belief propagation turns bag counts into instance labels, in rounds with the embedding.",
        _public("data.llp_bp:BagCollator bag_dataset", "labels.llp_bp:LLPLabels llp_pseudo_labels",
            "models.llp_bp:AutoModelWithBagHead BagHeadConfig",
            "trainers.llp_bp:LLPBootstrapper LLPTrainer LLPTrainingArguments"), ("roc_auc", "bag_proportion_error"),
        "bank marketing in bags", status="ready"),
    Method("latent_label_shift", "Latent Label Shift (DDFA)", "arXiv:2207.13179", 2022, "pooled", ("bag",),
        "label tool and trainer", "Finds classes from domains that mix them in different shares.",
        _public("labels.latent_label_shift:LatentLabelShift",
            "models.latent_label_shift:LLSConfig LLSForClassification",
            "trainers.latent_label_shift:LatentLabelShiftTrainer LatentLabelShiftTrainingArguments"),
        ("matched_accuracy", "mixture_l1"), "digits over domains", status="ready"),
    Method("tnt_llm", "TnT-LLM: text mining at scale", "arXiv:2403.12173", 2024, "written", ("text",),
        "label tool and classifier", "A language model writes the taxonomy and labels; a cheap classifier takes over.",
        _public("labels.tnt_llm:Taxonomy", "lm.tnt_llm:TaxonomyArguments TaxonomyInducer",
            "lm.tnt_llm_labels:LLMLabeler evaluate_taxonomy",
            "models.tnt_llm:TaxonomyClassifier TaxonomyClassifierConfig"),
        ("taxonomy_coverage", "accuracy"), "drug reviews and BBC news", status="ready"),
    Method("tail_vrd", "TAIL: documents without labels", "arXiv:2411.14957", 2024, "written", ("text",),
        "label tool and fine-tuning", "A large model labels documents by instruction; a small one is distilled.",
        _public("labels.tail_vrd:DocumentSchema", "lm.tail_vrd:TAILLabeler", "trainers.tail_vrd:distill",
            "models.tail_vrd:DocumentStudent evaluate_extraction"),
        ("anls", "anls_star"), "receipts drawn with known truth", status="ready"),
    Method("ceed_vla", "CEED-VLA: Jacobi decoding and consistency distillation", "arXiv:2506.13725", 2025, "sequence",
        ("sequence",), "custom_generate and trainer",
        "Decodes many action tokens per pass and distils the model to need fewer passes.",
        _public("generation.jacobi:jacobi_generate", "generation.trajectories:collect_jacobi_trajectories",
            "generation.custom_generate:save_custom_generate push_custom_generate",
            "labels.action_bins:ActionBinner",
            "trainers.ceed_vla:ConsistencyDistillationTrainer ConsistencyDistillationTrainingArguments"),
        ("jacobi_efficiency", "success_rate"), "Meta-World robot arm", status="ready"),
    Method("mcl_electra", "MCL: multi-perspective course learner", "arXiv:2305.03981", 2023, "self-made",
        ("sequence",), "model and trainer", "Five pre-training courses and soups of them for ELECTRA.",
        _public("models.mcl_electra_config:MCLElectraConfig", "models.mcl_electra:MCLElectraForPreTraining",
            "models.mcl_electra_soup:course_soup",
            "trainers.mcl_electra:MCLElectraTrainer MCLElectraTrainingArguments"),
        ("accuracy", "label_balance"), "BBC news", status="ready"),
    Method("hubertopic", "HuBERTopic", "arXiv:2310.03975", 2023, "self-made", ("sequence",), "model and tool",
        "Topics of unit sequences give HuBERT an utterance-level label.",
        ("HubertTopicForPreTraining", "TopicLabeler", "UnitLabeler"), ("unit_accuracy", "cluster_agreement"),
        "synthetic speech"),
    Method("mix_ln", "Mix-LN", "arXiv:2412.13795", 2024, "self-made", ("sequence",), "model surgery",
        "Post-LN in the first layers and Pre-LN in the rest, so that deep layers learn.",
        _public("models.mix_ln_families:MixLNConfig MixLNForCausalLM", "models.mix_ln:apply_mix_ln",
            "models.layer_diagnostics:GradientNormCallback layer_drop_report"),
        ("perplexity",), "BBC news, byte by byte", status="ready"),
    Method("sphinx", "SPHINX: mixing weights, tasks and embeddings", "arXiv:2311.07575", 2023, "self-made",
        ("sequence",), "model and tool", "Mixes weights, tasks and visual encoders of a multi-modal language model.",
        ("mix_weights", "MixedVisionModel", "SphinxForConditionalGeneration"), ("exact_match", "accuracy"),
        "emoji questions"),
    Method("dreamlip", "DreamLIP: long captions", "arXiv:2403.17007", 2024, "self-made", ("text",), "loss and trainer",
        "Sub-captions of a long caption as several positives, each with its own patches.",
        ("DreamLIPTrainer", "LongCaptionCollator"), ("recall_at_k", "accuracy"), "emoji with CLDR captions"),
    Method("multicapclip", "MultiCapCLIP", "arXiv:2308.13218", 2023, "self-made", ("text",), "model",
        "Learns captioning in many languages from text alone through CLIP's space.",
        ("MultiCapForCaptioning", "build_concept_bank"), ("bleu", "cider"), "emoji with CLDR captions"),
    Method("lg_anna", "LG-ANNA-Embedding", "arXiv:2506.07438", 2025, "self-made", ("soft", "text"),
        "sentence-transformers recipe", "Graded labels of a reranker and in-context prompts for one embedding model.",
        ("SoftLabelContrastiveLoss", "InContextCollator"), ("ndcg", "accuracy"), "BBC news retrieval"),
    Method("person_search_ssl", "Scale-invariant weakly supervised person search", "arXiv:2302.12986", 2023,
        "self-made", ("hard",), "model and rounds", "Pseudo-labels from self-similarity and scenes, robust to scale.",
        ("ScaleInvariantSearchModel", "SearchTrainer"), ("person_search",), "composed emoji scenes"),
)
# fmt: on

_BY_SLUG = {method.slug: method for method in METHODS}


def get(slug: str) -> Method:
    """Row of one method.

    Raises:
        KeyError: If no method has this slug; the message names the closest ones.
    """
    if slug in _BY_SLUG:
        return _BY_SLUG[slug]
    import difflib

    wanted = slug.lower().replace("-", "_")
    close = difflib.get_close_matches(wanted, _BY_SLUG, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    raise KeyError(f"No method is called {slug!r}.{hint} `hf-labels methods` lists all {len(METHODS)}.")


def by_problem() -> dict[str, tuple[Method, ...]]:
    """Rows grouped by label problem, in the order of `PROBLEMS`."""
    return {problem: tuple(m for m in METHODS if m.problem == problem) for problem in PROBLEMS}


def ready() -> tuple[Method, ...]:
    """Rows that are held to the matrix tests."""
    return tuple(method for method in METHODS if method.status == "ready")


def public_names() -> dict[str, str]:
    """Names exported by `hf_labels` -> the module that defines each."""
    paths = [*SHARED, *(path for method in ready() for path in method.public)]
    return {name: f"hf_labels.{module}" for module, name in (path.split(":") for path in paths)}
