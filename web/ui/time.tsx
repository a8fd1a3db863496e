import { whenText } from '@cde/api/idle-text.ts';
import { useEffect, useState } from 'react';
import { moment } from './format.ts';

/** The current time, updated every `everyMs`; null: never. */
export function useNow(everyMs: number | null): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    if (everyMs === null) return;
    setNow(Date.now());
    const timer = setInterval(() => setNow(Date.now()), everyMs);
    return () => clearInterval(timer);
  }, [everyMs]);
  return now;
}

/** A relative time; the exact one on hover. */
export function Ago({ at }: { at: string }) {
  useNow(20_000);
  return (
    <time dateTime={at} title={moment(at)}>
      {whenText(at, Date.now())}
    </time>
  );
}
