import { expect, test } from 'vitest';
import { Usernames } from './usernames.ts';

test('the newest thousand are kept, and a user who appears again counts as new', () => {
  const usernames = new Usernames();
  usernames.add({ ada: 'Ada', bob: 'Bob' });
  usernames.add({ ada: 'Ada L.' });
  usernames.add(Object.fromEntries(Array.from({ length: 999 }, (_, at) => [`user-${at}`, `${at}`])));
  expect(usernames.get('bob')).toBeUndefined();
  expect([usernames.get('ada'), usernames.get('user-0'), usernames.get('user-998')]).toEqual([
    'Ada L.',
    '0',
    '998',
  ]);
});
