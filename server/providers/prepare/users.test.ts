import { expect, test } from 'vitest';
import { groupWith, passwdWith, rangesWith, readUsers, shadowWith, sudoersFor } from './users.ts';

const passwd =
  'root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1::/:/usr/sbin/nologin\ndev:x:1000:1000::/home/dev:/bin/sh\n';
const dev = readUsers(passwd).find(({ name }) => name === 'dev');
const ada = { name: 'ada', uid: 1000, gid: 1000, home: '/home/ada', shell: '/bin/bash' };

test('the developer replaces the user with the same uid, after root', () => {
  expect(passwdWith(passwd, ada)).toBe(
    'root:x:0:0:root:/root:/bin/bash\nada:x:1000:1000:ada:/home/ada:/bin/bash\ndaemon:x:1:1::/:/usr/sbin/nologin\n',
  );
});

test('a user of the image with the same name and another uid is removed', () => {
  const users = readUsers(passwdWith(`${passwd}ada:x:1234:1234::/home/ada:/bin/sh\n`, ada));
  expect(users.filter(({ name }) => name === 'ada')).toEqual([
    { name: 'ada', uid: 1000, gid: 1000, home: '/home/ada' },
  ]);
});

test('a developer who is root has the home of the workspace by number and by name', () => {
  const users = readUsers(passwdWith(passwd, { ...ada, uid: 0, gid: 0 }));
  expect(users.filter(({ uid }) => uid === 0)).toEqual([
    { name: 'root', uid: 0, gid: 0, home: '/home/ada' },
    { name: 'ada', uid: 0, gid: 0, home: '/home/ada' },
  ]);
  expect(users.map(({ name }) => name)).toContain('dev');
});

test('an image without users gets root and the developer', () => {
  expect(readUsers(passwdWith('', ada)).map(({ name }) => name)).toEqual(['root', 'ada']);
});

test('the developer is in the groups of the image’s user, and has one of their own', () => {
  expect(groupWith('root:x:0:\nsudo:x:27:dev,eve\ndocker:x:999:dev\nmail:x:8:\n', ada, dev)).toBe(
    'root:x:0:\nsudo:x:27:dev,eve,ada\ndocker:x:999:dev,ada\nmail:x:8:\nada:x:1000:\n',
  );
  expect(groupWith('root:x:0:\ndev:x:1000:\n', ada, dev)).toBe('root:x:0:\ndev:x:1000:\n');
});

test('what sudo and rootless containers grant the image’s user they grant the developer', () => {
  const sudoers = [
    'Defaults env_reset\n%sudo ALL=(ALL) ALL\n',
    'dev ALL=(ALL) \\\n NOPASSWD: ALL\ndeveloper ALL=ALL\n',
  ];
  expect(sudoersFor(sudoers, 'ada', dev)).toBe('ada ALL=(ALL)   NOPASSWD: ALL\n');
  expect(sudoersFor(sudoers, 'ada', undefined)).toBe('');
  expect(rangesWith('dev:100000:65536\neve:200000:65536\n', 'ada', dev)).toBe(
    'dev:100000:65536\neve:200000:65536\nada:100000:65536\n',
  );
  expect(shadowWith('root:*:1::::::\nada:old:1::::::\n', 'ada')).toBe(
    'root:*:1::::::\nada:*:19000:0:99999:7:::\n',
  );
});
