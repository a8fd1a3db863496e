import { AgentActivity } from '@cde/api/activity.ts';
import { expect, test } from 'vitest';
import { makeActivity } from './activity.ts';

test('the latest occurrence of each signal, with its age and cause', () => {
  let now = 1000;
  const activity = makeActivity({ now: () => now });
  expect(activity.report()).toEqual({ agentAgeMs: 0, signals: [] });
  expect(activity.latestAgeMs()).toBeNull();
  activity.record('terminal-input', 'ada');
  now += 500;
  activity.record('process-cpu', 'make');
  now += 250.4;
  activity.record('terminal-input', 'bob');
  now += 50;
  expect(activity.latestAgeMs()).toBe(50);
  // Found out late, and older than what is known.
  activity.record('terminal-input', 'cy', 100);
  activity.record('editor-input', undefined, 200);
  expect(AgentActivity.parse(activity.report())).toEqual({
    agentAgeMs: 800,
    signals: [
      { signal: 'terminal-input', ageMs: 50, by: 'bob' },
      { signal: 'process-cpu', ageMs: 300, by: 'make' },
      { signal: 'editor-input', ageMs: 200 },
    ],
  });
});

test('observers hear whether a person or a program was active', () => {
  const activity = makeActivity();
  const heard: string[] = [];
  const stop = activity.observe((signal, source) => heard.push(`${signal} ${source}`));
  activity.record('terminal-input');
  activity.record('sync');
  stop();
  activity.record('build');
  expect(heard).toEqual(['terminal-input person', 'sync work']);
});

test('names of processes that the API would reject are made plain', () => {
  const activity = makeActivity();
  activity.record('process-cpu', `a\n\u{2028}\ud800${'😀'.repeat(100)}`);
  expect(AgentActivity.parse(activity.report()).signals[0]!.by).toMatch(/^a\?{3}😀+$/u);
});
