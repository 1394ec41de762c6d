"""What docs/reproduction.md says beside its tables."""

SHORT = """Points of accuracy (MAP@R, mAP) ± half of the 95 % interval that decides, and the verdict. What was spent on
each, beside what its paper spent, is the last column of the tables: networks of ours are of quarter width and trained
for a part of the published time."""

INTRODUCTION = """# Reproduction

What four papers on optimal transport in few-shot and transfer learning claim, and questions of ours beside it, tested
on real images with the networks that two cores can train. Written by a command from the files in [results](results);
no figure is typed by hand:

    python -m experiments.reproduce --suite quick     # minutes: committed checkpoints again, with few episodes
    python -m experiments.reproduce --suite full      # hours: every run, trained anew where a checkpoint is missing
    python -m experiments.reproduce --suite check     # seconds: again from the answers, where they are kept

The claims, the margins and the arms stand in `experiments/claims.toml`, first committed before most of the runs. Which
figures were known by then, and what was changed since, with or without its figure known:
[Fixed before the figures, and changed since](#fixed-before-the-figures-and-changed-since). Not listed there are
wordings and the published figures beside MatchingNet, which changed with figures known.

How to read it:

- Differences are points of accuracy (retrieval: MAP@R; metric learning: mAP), left minus right, on the same episodes,
  queries or images; beside a published level, what is found beyond it; in Table 6, times as long. Each ± is half of a
  95 % interval over one source, with the others held fixed: episodes or queries from these very classes; classes (a
  jackknife, which leaves out the four turns of an Omniglot character at once); images, where classes are fixed;
  networks, seeds or runs (Student's t). Pairing takes out what both sides share: two levels with wide intervals can
  have a difference with a narrow one. Levels of metric learning are over all seeds of a loss, differences over those
  that both have.
- What decides: classes where the question is about other classes, as in few-shot learning and retrieval; seeds in
  metric learning, whose test images are held fixed; images in long tails, whose classes are fixed by design, so that
  no interval over classes has a say there. Where networks differ as well, classes (or images) and networks are
  crossed, and "both at once" decides: the variances of both are added, with Satterthwaite's degrees of freedom, and
  the interval is never narrower than either's own (`otfew/statistics/crossed.py` has the formula, its sources and how
  often it holds the mean). p is likewise the largest of the three. Three networks have two degrees of freedom: the
  interval is wide, and one correction over all claims leaves few of such rows, however large the difference.
- Two columns. "Found here" is the verdict on our data and networks. "Bears on the paper's claim" follows one rule for
  all rows, in `experiments/claims.lock`, written down after one look at its outcome: the last two sentences came from
  that look, and the last decides a row. Each network behind the row is of the paper's kind; its width, epochs,
  episodes of meta-training, training images and resolution are at least half the paper's; its validation curve was
  kept and rises by at most 0.5 points in its last tenth; it was trained on the kind of nodes that it is tested on;
  the data set, whole, is one of the paper's. Else "not at this budget", and what is missing is bold in the last
  column. An arm without meta-training beside one with it is what the claim starts from. Ratios of times rest on none
  of this.
- A verdict takes the interval and the p of what decides, and Holm's correction of p for the claims of its table; other
  pages correct for other families, so that verdicts at the edge differ. Intervals are not corrected. The column
  "survive together" counts what one correction over all claims leaves.
- **confirmed** and **contradicted**: the difference stands, and left is better, as claimed, or worse. **equivalent**:
  the interval lies within the margin. **inconclusive**: neither. Margins (1 point; LST and retrieval 0.5) say what
  would matter to a user: where the published gain is smaller, "equivalent" does not contradict it.
- "on this checkpoint", "on these checkpoints", "with 2 seeds": fewer than three; nothing is said of others. Counted
  apart, as "few networks". A row about several networks has the figure of the first of them until the others have run
  ("1 of 3" in its column). A claim about a way of training needs three networks or seeds: with fewer it is
  inconclusive ("1 of 3 networks"), whatever its figure. "On one machine": repetitions of a timing are no networks, and
  it is counted among these. Rows share networks and arms: their number is no number of independent findings, and the
  number of independent networks stands beside the counts.
- Published figures are of larger networks, mostly of other data, and trained end to end where ours, unless a claim says
  so, are only pre-trained, on whole images: compare signs and order, not levels. Beside a question of ours there are
  none.
- "no claim": the same question with another network or size, from the page that is named, with what is known there; a
  difference without an interval is that of the two levels. They are rows so that no variant is left out.
- "again": the quick suite's figure, where both have run.
- Birds: 22 of the 50 test species of CUB's FEAT split, cropped near the bird, 84 px (for retrieval with an ImageNet
  network 50 of the 100 species present, 224 px). CIFAR-FS and FC100 at 32 px. Omniglot: characters as drawn, or with
  rotated ones as classes, as the papers have it. CIFAR-10 is a JPEG copy.
- The committed pre-trained networks kept the epoch at which `deepemd-fcn` was best on validation classes, which leans
  towards DeepEMD if towards any; new ones keep their last epoch. The ImageNet network (efficientnet-lite0) is external
  data: some test classes bear names of its classes."""
