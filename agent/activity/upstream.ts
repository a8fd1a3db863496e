import type { Duplex } from 'node:stream';
import type { Activity } from './activity.ts';

export interface InputClassifier {
  upstream(bytes: number): void;
  downstream(bytes: number): void;
  flush(): void;
}
export function makeInputClassifier(options: {
  onInput: (ageMs: number) => void;
  now?: () => number;
}): InputClassifier {
  void options;
  return { upstream() {}, downstream() {}, flush() {} };
}

/** Looks for input in what a client sends through a forwarded port or socket. */
export function observeForward(
  client: Duplex,
  target: Duplex,
  options: { activity: Activity; username: () => string | undefined },
): void {
  const classifier = makeInputClassifier({
    onInput: (ageMs) => options.activity.record('editor-input', options.username(), ageMs),
  });
  client.on('data', (chunk: Buffer) => classifier.upstream(chunk.length));
  target.on('data', (chunk: Buffer) => classifier.downstream(chunk.length));
  client.once('close', options.activity.beforeReport(classifier.flush));
}
