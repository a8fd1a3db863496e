import { hostName } from '@cde/satellite/ports/names.ts';
import { expect, test } from 'vitest';
import { parsePortLabel, parsePortPath, portLabel } from './names.ts';

const id = '01980000-0000-7000-8000-00000000abcd';

test('labels parse back to the port they were made from; long ones use the id', () => {
  const ref = { port: 8080, owner: 'ada', name: 'web-1', id };
  expect(portLabel(ref)).toBe('8080--web-1--ada');
  expect(parsePortLabel('8080--web-1--ada')).toEqual({ port: 8080, owner: 'ada', name: 'web-1' });
  const long = portLabel({ ...ref, owner: 'a'.repeat(32), name: 'b'.repeat(32) });
  expect(long).toBe('8080--01980000000070008000' + '00000000abcd');
  expect(parsePortLabel(long)).toEqual({ port: 8080, id });
});

test('invalid labels parse to null', () => {
  for (const label of [
    '',
    'web',
    '8080',
    '8080--',
    '0--web--ada',
    '08080--web--ada',
    '65536--web--ada',
    '80--web--ada--x',
    '80--Web--ada',
    '80--we.b--ada',
    '80---web--ada',
    '80--web--ada-',
    '80--../..--ada',
    '80--01980000',
  ])
    expect(parsePortLabel(label), label).toBe(null);
});

test('hostName drops the port and lowercases', () => {
  expect(hostName('A.Example.COM:7080')).toBe('a.example.com');
  expect(hostName('a.example.com.')).toBe('a.example.com');
  expect(hostName('[::1]:7080')).toBe('[::1]');
  expect(hostName(undefined)).toBe('');
});

test('the rest of a path is kept undecoded', () => {
  const ref = { owner: 'ada', name: 'web', port: 80 };
  expect(parsePortPath('/@ada/web/ports/80')).toEqual({ ref, pass: null, rest: '' });
  expect(parsePortPath('/@ada/web/ports/80/')).toEqual({ ref, pass: null, rest: '/' });
  expect(parsePortPath('/@ada/web/ports/80?x')).toEqual({ ref, pass: null, rest: '?x' });
  expect(parsePortPath('/@ada/web/ports/80/%2e%2e/../a?b')).toEqual({
    ref,
    pass: null,
    rest: '/%2e%2e/../a?b',
  });
  expect(parsePortPath('/@ada/web/ports/80/~cde.a.b-c/x')).toEqual({ ref, pass: 'a.b-c', rest: '/x' });
  expect(parsePortPath('/@ada/web/ports/80/~joe/')).toEqual({ ref, pass: null, rest: '/~joe/' });
  for (const path of [
    '/@ada/web',
    '/@ada/web/ports/',
    '/@ada/web/ports/0/',
    '/@ada/web/ports/80x',
    '/@a/../ports/80/',
    'http://x/@ada/web/ports/80/',
  ])
    expect(parsePortPath(path), path).toBe(null);
});
