import { spanText, whenText } from '@cde/api/idle-text.ts';

/** A length of time for a person, with the seconds of short ones: `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`, `4 days`. */
export function duration(ms: number): string {
  if (ms < 9_950) return `${(Math.max(0, ms) / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 60 || seconds >= 3600) return spanText(ms);
  const minutes = `${Math.floor(seconds / 60)} min`;
  return seconds % 60 === 0 ? minutes : `${minutes} ${seconds % 60} s`;
}

/** When, seen from now: `just now`, `5 min ago`, `in 3 days`. */
export function relative(moment: string | null, now = Date.now()): string {
  return moment === null ? 'never' : whenText(moment, now);
}

/** A moment in the past as an option gives it: `2h`, `7d`, `2026-05-01`, or an ISO moment. Null: not one. */
export function parseMoment(text: string, now = Date.now()): string | null {
  const ago = /^(\d+)(s|m|h|d|w)$/.exec(text);
  if (ago) {
    const unit = { s: 1e3, m: 6e4, h: 36e5, d: 864e5, w: 6048e5 }[ago[2] as 's'];
    return new Date(now - Number(ago[1]) * unit).toISOString();
  }
  if (!/^\d{4}-\d{2}-\d{2}/.test(text)) return null;
  const at = new Date(text);
  return Number.isNaN(at.getTime()) ? null : at.toISOString();
}
