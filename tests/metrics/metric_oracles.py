"""What the metrics are compared with: scikit-learn, loops over every distinct threshold, plain sorts."""

import numpy as np
from scipy.ndimage import label
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

CORNERS = np.ones((3, 3))


def sklearn_values(scores, labels):
    """AUROC, AP and F1-max of flat scores; -inf, which scikit-learn refuses, becomes the lowest rank."""
    scores = np.asarray(scores, np.float64)
    scores = np.unique(scores, return_inverse=True)[1].astype(np.float64)  # ranks: finite, same order
    precision, recall, _ = precision_recall_curve(labels, scores)
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    return roc_auc_score(labels, scores), average_precision_score(labels, scores), f1.max()


def brute_ranking(scores, truth):
    """Distinct scores of defects, falling; defects at each, normal pixels above each and on each."""
    scores = scores.astype(np.float64)  # exact, and NumPy 2.4 leaves float16 unsorted now and then
    defect, normal = scores[truth], np.sort(scores[~truth])
    distinct, hits = np.unique(defect, return_counts=True)
    above = len(normal) - np.searchsorted(normal, distinct, side="right")
    ties = len(normal) - np.searchsorted(normal, distinct, side="left") - above
    return {"scores": distinct[::-1], "hits": hits[::-1], "above": above[::-1], "ties": ties[::-1]}


def regions_of(maps, masks, ignore=None):
    """Scores of the normal pixels, and of each 8-connected region those that are not left out."""
    ignore = ignore if ignore is not None else [np.zeros(np.shape(m), bool) for m in maps]
    regions, normals = [], []
    for values, mask, hidden in zip(maps, masks, ignore, strict=True):
        numbered, count = label(mask, structure=CORNERS)
        found = [values[(numbered == k) & ~hidden] for k in range(1, count + 1)]
        regions += [region for region in found if region.size]
        normals.append(values[(numbered == 0) & ~hidden])
    return np.concatenate(normals), regions


def brute_aupro(maps, masks, limit, ignore=None):
    """Area under the curve of `brute_curve` up to `limit`, trapezoid by trapezoid, divided by it."""
    return brute_area(brute_curve(maps, masks, ignore), limit)


def brute_curve(maps, masks, ignore=None):
    """The points of all distinct scores, one full pass over the images for each, region by region."""
    normal, regions = regions_of(maps, masks, ignore)
    fpr, pro = [0.0], [0.0]
    for t in np.unique(np.concatenate([normal, *regions]))[::-1]:
        fpr.append(np.mean(normal >= t))
        pro.append(np.mean([np.mean(region >= t) for region in regions]))
    return fpr, pro


def brute_area(curve, limit):
    fpr, pro = curve
    area = 0.0
    for a, b, low, high in zip(fpr[:-1], fpr[1:], pro[:-1], pro[1:], strict=True):
        if a >= limit or a == b:
            continue
        cut = high if b <= limit else low + (high - low) * (limit - a) / (b - a)
        area += (min(b, limit) - a) * (low + cut) / 2
    return area / limit


def swept_aupro(maps, masks, limit, ignore=None):
    """As brute_aupro, for larger sets: each region is sorted once and then counted at all thresholds."""
    normal, regions = regions_of([m.astype(np.float64) for m in maps], masks, ignore)
    return swept_area(normal, [(region, len(region)) for region in regions], limit)


def swept_spro(maps, defects, limit):
    """Area under the mean saturated overlap; defects: of each image its (mask, saturation) pairs."""
    normal, found = [], []
    for values, own in zip([m.astype(np.float64) for m in maps], defects, strict=True):
        union = np.zeros(values.shape, bool)
        for mask, saturation in own or ():
            union |= mask
            found.append((values[mask], saturation))
        normal.append(values[~union])
    return swept_area(np.concatenate(normal), found, limit)


def swept_area(normal, defects, limit):
    """Trapezoids between the points of all distinct scores, the last cut at `limit`, divided by it."""
    every = np.unique(np.concatenate([normal, *(values for values, _ in defects)]))[::-1]

    def called(values):  # how many, at each threshold
        return len(values) - np.searchsorted(np.sort(values), every)

    overlap = np.zeros(len(every))
    for values, saturation in defects:
        overlap += np.minimum(called(values) / saturation, 1.0)
    fpr = np.append(0.0, called(normal) / len(normal))
    pro = np.append(0.0, overlap / len(defects))
    wide = (fpr[1:] > fpr[:-1]) & (fpr[:-1] < limit)
    a, b, low, high = fpr[:-1][wide], fpr[1:][wide], pro[:-1][wide], pro[1:][wide]
    end = np.minimum(b, limit)
    cut = low + (high - low) * (end - a) / (b - a)
    return float(np.sum((end - a) * (low + cut)) / 2 / limit)


def made_set(seed, images=6, size=24, levels=None, sizes=None, dtype=np.float64):
    """Maps, masks, image scores and labels with two normal images, blobs, and ties where `levels` says."""
    rng = np.random.default_rng(seed)
    maps, masks = [], []
    for image in range(images):
        shape = sizes[image] if sizes else (size, size)
        mask = np.zeros(shape, bool)
        if image >= 2:
            for _ in range(rng.integers(1, 5)):
                top, left = (int(rng.integers(0, n)) for n in shape)
                mask[top : top + rng.integers(1, 6), left : left + rng.integers(1, 6)] = True
        values = rng.normal(size=shape) + 1.5 * mask
        if levels:
            values = np.round(values * levels) / levels
        maps.append(values.astype(dtype))
        masks.append(mask)
    labels = np.array([int(mask.any()) for mask in masks])
    return maps, masks, np.array([m.max() for m in maps], dtype), labels


def made_loco(seed, images=7, size=20, levels=None):
    """Maps, their masks, and of each image its defects as (mask, saturation), which overlap; two are good."""
    rng = np.random.default_rng(seed)
    maps, masks, defects = [], [], []
    for image in range(images):
        own = []
        for number in range(rng.integers(1, 4) if image >= 2 else 0):
            mask = np.zeros((size, size), bool)
            top, left = rng.integers(0, size - 4, 2)
            mask[top : top + rng.integers(2, 9), left : left + rng.integers(2, 9)] = True
            if number == 1:  # a channel of several pieces, as LOCO has them
                mask[rng.integers(0, size, 3), rng.integers(0, size, 3)] = True
            area = int(mask.sum())
            # absolute (a wide defect: far less than its area) or a share of the area; never less than 1
            own.append((mask, max(1, min(10, area) if rng.random() < 0.5 else int(0.6 * area))))
        union = np.logical_or.reduce([mask for mask, _ in own]) if own else np.zeros((size, size), bool)
        values = rng.normal(size=(size, size)) + 1.2 * union
        maps.append(np.round(values * levels) / levels if levels else values)
        masks.append(union)
        defects.append(own)
    return maps, masks, defects


def flat(arrays):
    return np.concatenate([np.ravel(a) for a in arrays])
