import { expect, it } from 'vitest';
import type { Clock } from '../clock.ts';
import { makeAccessCheck } from './access-check.ts';

function setup(changes: { answer?: (users: string[]) => Promise<string[]> } = {}) {
  const asked: string[][] = [];
  const unanswered: unknown[] = [];
  let now = 0;
  let timeUp = () => {};
  const clock: Clock = {
    now: () => now,
    random: () => 0,
    sleep: () =>
      new Promise((resolve) => {
        timeUp = resolve;
      }),
  };
  const suspended = new Set<string>();
  const access = makeAccessCheck({
    ask(users) {
      asked.push(users);
      return changes.answer?.(users) ?? Promise.resolve(users.filter((user) => suspended.has(user)));
    },
    onUnavailable: (error) => unanswered.push(error),
    clock,
  });
  return { access, asked, unanswered, suspended, pass: (ms: number) => (now += ms), timeUp: () => timeUp() };
}

it('refuses only the users whom the server names', async () => {
  const { access, suspended } = setup();
  suspended.add('ada');
  await expect(access.check('ada')).rejects.toMatchObject({ code: 'access-ended' });
  await expect(access.check('bob')).resolves.toBeUndefined();
});

it('uses an answer that was asked for while the client made its handshake, once the user is known', async () => {
  const { access, asked, suspended, pass } = setup();
  access.prefetch();
  expect(asked).toEqual([]);
  await access.check('ada');
  suspended.add('ada');
  access.prefetch();
  pass(1_000);
  await expect(access.check('ada')).rejects.toMatchObject({ code: 'access-ended' });
  expect(asked).toEqual([['ada'], ['ada']]);
});

it('does not use an answer that is old, or about others', async () => {
  const { access, asked, suspended, pass } = setup();
  await access.check('ada');
  access.prefetch();
  suspended.add('ada');
  pass(2_001);
  await expect(access.check('ada')).rejects.toMatchObject({ code: 'access-ended' });
  await access.check('bob');
  expect(asked).toEqual([['ada'], ['ada'], ['ada'], ['bob']]);
});

it('lets the ticket decide when the server does not answer in time, or fails', async () => {
  const silent = setup({ answer: () => new Promise(() => {}) });
  const waiting = silent.access.check('ada');
  silent.timeUp();
  await expect(waiting).resolves.toBeUndefined();
  expect(silent.unanswered).toEqual([new Error('no answer within 2 s')]);

  const failing = setup({ answer: () => Promise.reject(new Error('away')) });
  await failing.access.check('ada');
  await failing.access.check('ada');
  expect(failing.unanswered).toEqual([new Error('away')]);
});
