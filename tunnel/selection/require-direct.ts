import { setTimeout as delay } from 'node:timers/promises';
import { TunnelError } from '../errors.ts';
import type { PathKind } from '../pipe/path.ts';
import type { Pipe } from '../pipe/pipe.ts';
import { type PathId, pathIdOf } from './path-id.ts';
import type { Survey } from './survey.ts';

/** Moves a session that may not use the relay off the one it opened through. */
export function makeDirectRequirement(options: {
  pipe: Pipe;
  survey: Survey;
  paths: readonly PathKind[];
  /** How long to wait for the agent's offer. */
  offerMs: number;
  signal: AbortSignal;
  moveTo: (id: PathId, reason: string, text: (from: string) => string) => Promise<boolean>;
}): {
  /** Call when the agent has made its first offer. */
  onOffer(): void;
  /** Rejects with `path-unavailable` or `path-forbidden` if no direct path is available. */
  move(): Promise<void>;
} {
  const { pipe, survey, signal } = options;
  const wanted = options.paths.join(' or ');
  const firstOffer = Promise.withResolvers<void>();

  async function moveToMeasured(): Promise<boolean> {
    const measures = survey.measurements().filter(({ kind, rttMs }) => kind !== 'relay' && rttMs !== null);
    const text = (from: string) => `${wanted} was requested, instead of ${from}`;
    for (const measure of measures) if (await options.moveTo(pathIdOf(measure), 'wanted', text)) return true;
    return false;
  }

  return {
    onOffer: firstOffer.resolve,
    async move() {
      await Promise.race([
        firstOffer.promise,
        delay(options.offerMs, null, { ref: true, signal }).catch(() => {}),
      ]);
      if (pipe.errored) throw pipe.errored;
      const { offered } = survey;
      if (!offered) throw new TunnelError('path-unavailable', 'the agent offers no path but the relay');
      if (!options.paths.some((kind) => offered.paths.includes(kind)))
        throw new TunnelError('path-forbidden', `${wanted}; allowed are: ${offered.paths.join(', ')}`);
      survey.publish();
      const isUdpAllowed = survey.isAllowed('direct-udp');
      if (survey.addresses().length === 0 && !isUdpAllowed)
        throw new TunnelError('path-unavailable', `${wanted}: the agent has no reachable address`);
      await Promise.all(survey.addresses().map(survey.measureAddress));
      if (await moveToMeasured()) return;
      if (survey.isAllowed('direct-udp') && !signal.aborted) {
        await survey.findUdp();
        await survey.measureUdp();
        if (await moveToMeasured()) return;
      }
      if (pipe.errored) throw pipe.errored;
      throw new TunnelError(
        'path-unavailable',
        [survey.tcpFailure(), survey.udpFailure()].filter(Boolean).join('; ') ||
          'the session could not be moved there',
      );
    },
  };
}
