"""Figures of a protocol in plain loops, written from the definitions alone."""


def listed(row, junk, duplicates):
    """The images that take a position: no entry of -1, no junk, none a second time."""
    kept = []
    for image in row:
        if image == -1 or image in junk or (duplicates and image in kept):
            continue
        kept.append(image)
    return kept


def average_precision(kept, positives, rule, cutoff):
    if rule == "at-r":
        rule, cutoff = "rectangle", len(positives)
    total, hits = 0.0, 0
    for position, image in enumerate(kept, 1):
        if cutoff is not None and position > cutoff:
            break
        if image in positives:
            before = 1.0 if position == 1 else hits / (position - 1)
            hits += 1
            now = hits / position
            total += now if rule == "rectangle" else (before + now) / 2
    possible = len(positives) if cutoff is None else min(len(positives), cutoff)
    return 100 * total / possible


def precision(kept, positives, k):
    """At the last positive where it is before k, as the revisited evaluation does."""
    found = [position for position, image in enumerate(kept, 1) if image in positives]
    last = min(k, found[-1]) if len(found) == len(positives) else k
    return 100 * sum(position <= last for position in found) / last


def recall(kept, positives, k):
    return 100.0 if any(image in positives for image in kept[:k]) else 0.0


def figures(ranking, queries, protocol):
    """A list with, for each query, name -> figure, or None where the query is left out."""
    found = []
    chosen = list(range(len(queries)))[slice(*(protocol.queries or (None, None)))]
    for number, (row, query) in enumerate(zip(ranking, queries, strict=True)):
        junk = {int(image) for key in protocol.junk for image in query[key]}
        positives = {int(image) for key in protocol.positives for image in query[key]} - junk
        kept = listed([int(image) for image in row], junk, protocol.duplicates == "first")
        values = {}
        for name in [protocol.ap_name, *(f"P@{k}" for k in protocol.precision_at)]:
            if number not in chosen or (not positives and protocol.empty == "skip"):
                values[name] = None
            elif not positives:
                values[name] = 0.0
            elif name.startswith("P@"):
                values[name] = precision(kept, positives, int(name[2:]))
            else:
                values[name] = average_precision(kept, positives, protocol.ap, protocol.cutoff)
        for k in protocol.recall_at:
            rule = protocol.empty_recall or protocol.empty
            left_out = number not in chosen or (not positives and rule == "skip")
            values[f"R@{k}"] = None if left_out else recall(kept, positives, k)
        found.append(values)
    return found


def recognize(ids, similarities, classes, neighbours, temperature):
    """(class, confidence) of each query: maxima of the classes' similarities, softmax over all classes."""
    from math import exp

    every, found = sorted(set(classes)), []
    for row, values in zip(ids, similarities, strict=True):
        best = {}
        for image, value in list(zip(row, values, strict=True))[:neighbours]:
            best[classes[image]] = max(best.get(classes[image], 0.0), float(value))
        weights = {name: exp(temperature * best.get(name, 0.0)) for name in every}
        chosen = max(sorted(best), key=lambda name: best[name])
        found.append((chosen, weights[chosen] / sum(weights.values())))
    return found


def gap(found, truth):
    """Micro average precision; a class of -1 can only lose."""
    order = sorted(range(len(found)), key=lambda q: -found[q][1])
    right = total = 0.0
    for place, query in enumerate(order, 1):
        if found[query][0] == truth[query]:
            right += 1
            total += right / place
    return 100 * total / sum(name != -1 for name in truth)
