import fc from 'fast-check';
import { expect, test } from 'vitest';
import { parse } from 'yaml';
import { type KubeContext, merge, removeContext, standaloneConfig } from './merge.ts';

const web: KubeContext = {
  name: 'cde-ada-web',
  namespace: 'cde-ada-web',
  cluster: { server: 'https://10.0.0.1:6443' },
  user: {
    exec: { command: 'cde', args: ['/opt/cde.mjs', 'kube-token', 'web', '--server', 'https://cde.example'] },
  },
};
const theirs = `# mine
apiVersion: v1
kind: Config
clusters:
  - name: prod   # careful
    cluster: {server: "https://prod"}
users: [{name: me, user: {token: secret}}]
contexts:
  - name: prod
    context: {cluster: prod, user: me}
current-context: prod
preferences: {}
`;

test('a context is added, and everything else stays, including comments', () => {
  const text = merge(theirs, web, false);
  expect(text).toContain('# mine');
  expect(text).toContain('# careful');
  const value = parse(text);
  expect(value['current-context']).toBe('prod');
  expect(value.contexts.map((each: { name: string }) => each.name)).toEqual(['prod', 'cde-ada-web']);
  expect(value.users[0]).toEqual({ name: 'me', user: { token: 'secret' } });
  expect(parse(merge(text, web, true))['current-context']).toBe('cde-ada-web');
});

test('adding it again changes nothing, and removing it restores the file', () => {
  const once = merge(theirs, web, false);
  expect(merge(once, web, false)).toBe(once);
  const server = 'https://cde.example';
  expect(parse(removeContext(once, 'cde-ada-web', server)!)).toEqual(parse(theirs));
  expect(removeContext(theirs, 'cde-ada-web', server)).toBeNull();
});

test('a name from the server never replaces an entry that is not its own', () => {
  const taken = expect.objectContaining({ code: 'kubeconfig-name-taken' });
  // The user's own context, cluster and user entry, each by itself.
  for (const name of ['prod', 'me']) {
    expect(() => merge(theirs, { ...web, name }, true)).toThrow(taken);
    expect(removeContext(theirs, name, 'https://cde.example')).toBeNull();
  }
  // Another server's.
  const once = merge(theirs, web, true);
  const args = ['/opt/cde.mjs', 'kube-token', 'web', '--server', 'https://evil.example'];
  const other = { ...web, user: { exec: { command: 'cde', args } } };
  expect(() => merge(once, other, true)).toThrow(taken);
  expect(removeContext(once, web.name, 'https://evil.example')).toBeNull();
  // Ours, which the user has pointed at their own cluster.
  const changed = once.replace('cluster: cde-ada-web', 'cluster: prod');
  expect(() => merge(changed, web, true)).toThrow(taken);
  // Ours again, with another path of cde and a renamed workspace.
  const moved = ['/usr/cde.mjs', 'kube-token', 'ada/web', '--server', 'https://cde.example'];
  expect(merge(once, { ...web, user: { exec: { command: 'node', args: moved } } }, true)).toContain(
    'ada/web',
  );
});

test('an empty file becomes a kubeconfig; a file that is not one is left alone', () => {
  expect(parse(standaloneConfig(web))).toMatchObject({ kind: 'Config', 'current-context': 'cde-ada-web' });
  expect(() => merge('- a list', web, true)).toThrow(/cannot be read/);
  expect(() => merge('a: [', web, true)).toThrow(/cannot be read/);
});

test('no other context is ever lost', () => {
  const names = fc.uniqueArray(fc.stringMatching(/^[a-z][a-z0-9-]{0,10}$/), { maxLength: 5 });
  fc.assert(
    fc.property(names, fc.boolean(), (others, current) => {
      let text = '';
      for (const name of others) text = merge(text, { ...web, name }, true);
      const after = parse(removeContext(merge(text, web, current), web.name, 'https://cde.example')!);
      expect((after.contexts ?? []).map((each: { name: string }) => each.name)).toEqual(others);
      expect((after.users ?? []).map((each: { name: string }) => each.name)).toEqual(others);
    }),
  );
});
