import { type Build, getBuildLog } from '@cde/api/workspaces.ts';
import { useEffect, useRef, useState } from 'react';
import { call } from '../client.ts';
import { live, useTopic } from '../live/live.ts';
import { addFetched, addLive, emptyLog, type Log } from './log.ts';
import { ended } from './status.tsx';

const pageLines = 1000;
// Without events the request itself waits at the server for the next line.
const heldSeconds = 20;
// If a server or proxy replies at once instead of holding the request, do not poll in a tight loop.
const pauseMs = 1000;

export interface FollowedLog {
  log: Log;
  /** The first page has arrived. */
  loaded: boolean;
  /** These are the last lines. */
  done: boolean;
  error: unknown;
}

const nothing: FollowedLog = { log: emptyLog, loaded: false, done: false, error: null };

/** A build's log as it grows: through events if they arrive, else through long polling. */
export function useLog(build: Build): FollowedLog {
  const { id } = build;
  const over = ended(build);
  const [state, setState] = useState<FollowedLog & { of: string }>({ ...nothing, of: id });
  const shown = state.of === id ? state : nothing;
  useTopic(over ? null : `build:${id}`);
  // The end may be known from elsewhere than this build's events, so fetch the last lines then too.
  const end = useRef({ known: over, tell: () => {} });
  end.current.known = over;
  useEffect(() => {
    if (over) end.current.tell();
  }, [over]);

  useEffect(() => {
    const abort = new AbortController();
    let current: FollowedLog = nothing;
    let frame = 0;
    let wake: (() => void) | null = null;
    let woken = false;
    const poke = () => {
      woken = true;
      wake?.();
    };
    end.current.tell = poke;
    const rest = async (ms?: number) => {
      if (!woken) {
        await new Promise<void>((resolve) => {
          wake = resolve;
          if (ms !== undefined) setTimeout(resolve, ms);
        });
        wake = null;
      }
      woken = false;
    };
    // Renders a burst of lines once.
    const set = (change: Partial<FollowedLog>) => {
      current = { ...current, ...change };
      if (frame === 0)
        frame = requestAnimationFrame(() => {
          frame = 0;
          setState({ ...current, of: id });
        });
    };
    const unlisten = live.onMessage((message) => {
      if (message.type === 'log' && message.buildId === id) {
        const { log, gap } = addLive(current.log, message.lines);
        set({ log });
        if (gap) poke();
      } else if (
        ((message.type === 'subscribed' || message.type === 'resync') && message.topic === `build:${id}`) ||
        (message.type === 'build' && message.build.id === id && ended(message.build))
      )
        poke();
    });
    const unwatch = live.onState(poke);

    async function pump(): Promise<void> {
      while (!abort.signal.aborted) {
        const state = live.state();
        const wait = current.loaded && state !== 'live' && state !== 'paused' ? heldSeconds : 0;
        const asked = performance.now();
        try {
          const reply = await call(getBuildLog, {
            params: { build: id },
            query: { after: current.log.last, limit: pageLines, wait },
            signal: abort.signal,
          });
          if (abort.signal.aborted) return;
          set({ log: addFetched(current.log, reply.lines), loaded: true, error: null, done: reply.done });
          if (reply.done) return;
          if (reply.lines.length >= pageLines) continue;
          if (wait > 0) {
            if (performance.now() - asked < pauseMs) await rest(pauseMs);
            continue;
          }
          const told = state === 'live' || state === 'paused';
          await rest(told && !end.current.known ? undefined : pauseMs);
        } catch (error) {
          if (abort.signal.aborted) return;
          set({ error });
          await rest(3 * pauseMs);
        }
      }
    }
    void pump();
    return () => {
      abort.abort();
      poke();
      unlisten();
      unwatch();
      cancelAnimationFrame(frame);
    };
  }, [id]);

  return shown;
}
