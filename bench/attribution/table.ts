import type { Judged, Played, Score } from './score.ts';

/** Prints the result for people. */
export function print({
  result,
  judged,
  all,
  failed,
  chance,
}: {
  result: Score;
  judged: Judged[];
  all: Played[];
  failed: string[];
  chance: Score;
}): void {
  const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
  console.log(`seed ${result.seed}, ${result.cases} cases`);
  console.log('\ninjected                     right     of  named instead');
  for (const [truth, named] of Object.entries(result.confusion).sort()) {
    const of = Object.values(named).reduce((sum, count) => sum + count, 0);
    const right = judged.filter((each) => each.truth === truth && each.isCauseRight).length;
    const wrong = Object.entries(named).filter(([cause]) => cause !== truth);
    console.log(
      `${truth.padEnd(28)} ${String(right).padStart(5)} ${String(of).padStart(6)}  ${wrong.map(([cause, count]) => `${cause} ${count}`).join(', ')}`,
    );
  }
  console.log('\nsegment accuracy     ', percent(result.segmentAccuracy));
  console.log('cause accuracy       ', percent(result.causeAccuracy));
  console.log('false blame          ', `${result.falseBlame} cases`);
  console.log(
    'p95 time to name     ',
    result.p95SecondsToName === null ? '-' : `${result.p95SecondsToName} s`,
  );
  console.log(
    'causes shuffled      ',
    `${percent(chance.causeAccuracy)} by cause, ${percent(chance.segmentAccuracy)} by segment`,
  );
  const quiet = all.filter(({ injected }) => injected.length === 0);
  if (quiet.length > 0) {
    const minutes = quiet.reduce((sum, { case: one }) => sum + one.quietMs / 60_000, 0);
    const reported = quiet.reduce((sum, { finals }) => sum + finals.length, 0);
    console.log('quiet                ', `${reported} incidents in ${minutes} minutes`);
  }
  if (failed.length > 0) console.log('could not be played  ', `${failed.length} cases`);
  const wrong = judged.filter((each) => !each.isCauseRight || each.falseBlame.length > 0);
  if (wrong.length > 0) console.log('\nwrong:');
  for (const { id, truth, named, falseBlame } of wrong)
    console.log(
      `  ${id}: ${truth} named ${named}${falseBlame.length > 0 ? `; blamed: ${falseBlame.map(({ cause }) => cause).join(', ')}` : ''}`,
    );
}
