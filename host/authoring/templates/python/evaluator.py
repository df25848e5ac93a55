from wit_world.imports.types import Detail, Direction, Metric, Sample

graded: list[float] = []


class Evaluate(exports.Evaluate):
    def grade(self, samples: list[Sample]) -> list[Detail]:
        return [grade_one(it) for it in samples]

    def finish(self) -> list[Metric]:
        values = list(graded)
        graded.clear()
        if not values:
            return []
        mean = sum(values) / len(values)
        return [Metric("exact", mean, Direction.HIGHER_IS_BETTER, None, len(values))]


def grade_one(sample: Sample) -> Detail:
    if sample.reference is None:
        return Detail(sample.id, [], "no expected answer")
    exact = float(same(sample.completion.text.strip(), sample.reference.strip()))
    graded.append(exact)
    return Detail(sample.id, [("exact", exact)], None)


def same(answer: str, expected: str) -> bool:
    return answer == expected or (config["ignore_case"] and answer.lower() == expected.lower())
