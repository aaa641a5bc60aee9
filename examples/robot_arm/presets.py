"""Sizes of the robot experiment. The goals of seed 7 chose between `CHOICES`; seeds 9 and 11 report."""

from robot_arm.pipeline import Ablation, Preset, Student, Teacher

FRESH = Student()  # ground-truth anchor of weight 2 on all demonstrations, all iterates, 800 steps
EARLY = Student(thin=3, lr=1e-3, weight=1.0, steps=1000)  # only the first 3 iterates of each trajectory
CHOICES = (
    ("one phase, all iterates, omega 2, learning rate 5e-4, 800 steps", FRESH),
    ("one phase, first 3 iterates, omega 1, learning rate 1e-3, 1000 steps", EARLY),
)

PRESETS = {
    "quick": Preset(
        tasks=("reach-v3", "drawer-open-v3", "button-press-v3"),
        demo_seeds=(1000, 1001),
        teacher=Teacher(steps=300, keep=(300,)),
        student=Student(teacher_step=300, records=750, steps=100, thin=3, lr=1e-3, weight=1.0),
        seeds=(0,),
        goals=10,
        sigmas=(2, 3),
        teacher_sigmas=(3,),
        prompts_per_block=5,
    ),
    "paper-like": Preset(
        student=EARLY,
        choices=CHOICES,
        ablation=Ablation(Student(teacher_step=400, records=2000, anchor="mixed", weight=1.0, steps=200)),
    ),
}
