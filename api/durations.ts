/** A day that is not one of a calendar. */
export const dayMs = 86_400_000;

const unitSeconds = { s: 1, m: 60, h: 3600, d: 86_400, w: 604_800 };
type Unit = keyof typeof unitSeconds;

/** Seconds in a length of time as people write it: `90s`, `30m`, `3h`, `1h30m`, `7d`. Null: not one. */
export function parseDuration(text: string): number | null {
  if (!/^(\d+[smhdw])+$/.test(text)) return null;
  let sum = 0;
  for (const [, count, unit] of text.matchAll(/(\d+)([smhdw])/g))
    sum += Number(count) * unitSeconds[unit as Unit];
  return sum > 0 && Number.isSafeInteger(sum) ? sum : null;
}

/** The same backwards: `1h30m`. */
export function writeDuration(seconds: number): string {
  let rest = seconds;
  let text = '';
  for (const unit of ['d', 'h', 'm', 's'] as const) {
    const count = Math.floor(rest / unitSeconds[unit]);
    if (count > 0) text += `${count}${unit}`;
    rest -= count * unitSeconds[unit];
  }
  return text;
}
