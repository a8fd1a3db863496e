import type { IdleState } from '@cde/api/activity.ts';
import { causeText, shortStopText, stopText } from '@cde/api/idle-text.ts';
import { useNow } from '../ui/time.tsx';
import { stopsSoon } from './stop-clock.ts';
import './idle.css';

/** When a workspace stops, in a few words; why on hover. */
export function Stops({ idle }: { idle: IdleState }) {
  const now = useNow(20_000);
  return (
    <span
      className={idle.held || idle.waitsForReport ? 'muted' : stopsSoon(idle, now) ? 'stops-soon' : undefined}
      title={`Awake because of ${causeText(idle.awakeBecause, now)}. ${stopText(idle, now)}`}
    >
      {shortStopText(idle, now)}
    </span>
  );
}
