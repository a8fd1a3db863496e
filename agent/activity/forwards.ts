import type { Duplex } from 'node:stream';
import type { Activity } from './activity.ts';
import { makeInputClassifier } from './editor-input.ts';

/** Observes the connections that one client forwards to ports and sockets of the workspace. */
export interface ForwardObserver {
  observe(client: Duplex, target: Duplex): void;
}

/** `by`: the client's user. All connections of a client are judged together, as editor-input.ts explains. */
export function makeForwardObserver(options: {
  activity: Activity;
  by: () => string | undefined;
}): ForwardObserver {
  const classifier = makeInputClassifier({
    onInput: () => options.activity.record('editor-input', options.by()),
    now: options.activity.now,
  });
  return {
    observe(client, target) {
      client.on('data', (chunk: Buffer) => classifier.upstream(chunk.length));
      target.on('data', () => classifier.downstream());
    },
  };
}
