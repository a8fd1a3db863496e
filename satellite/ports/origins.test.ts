import { describe, expect, test } from 'vitest';
import {
  type PortAddress,
  toLocalOrigin,
  toLocalReferer,
  toPublicLinks,
  toPublicRefresh,
  toPublicUrl,
} from './origins.ts';

const byName: PortAddress = { port: 3000, origin: 'https://3000--web--ada.dev.example.com', prefix: null };
const withPort: PortAddress = { port: 3000, origin: 'http://3000--web--ada.localhost:7484', prefix: null };
const byPath: PortAddress = {
  port: 3000,
  origin: 'https://cde.example.com',
  prefix: '/@ada/web/ports/3000/~cde.PASS',
  hasPass: true,
};

describe('Origin', () => {
  test.each([
    [byName, byName.origin, 'http://localhost:3000'],
    [withPort, withPort.origin, 'http://localhost:3000'],
    [withPort, 'http://3000--WEB--Ada.localhost:7484', 'http://localhost:3000'],
    // Another port of the same workspace is translated to itself, which is still another origin.
    [byName, 'https://8000--web--ada.dev.example.com', 'http://localhost:8000'],
    [byPath, 'null', 'http://localhost:3000'],
  ])('of %o: %s is %s', (address, origin, expected) => {
    expect(toLocalOrigin(origin, address)).toBe(expected);
  });

  test.each([
    [byName, 'https://evil.example'],
    [byName, 'http://3000--web--ada.dev.example.com'],
    [byName, 'https://3000--web--ada.dev.example.com:8443'],
    [byName, 'https://3000--web--eve.dev.example.com'],
    [byName, 'https://3000--web--ada.dev.example.com.evil.example'],
    [byName, 'https://3000--web--ada.dev.example.com@evil.example'],
    [byName, 'https://99999--web--ada.dev.example.com'],
    [byName, 'https://dev.example.com'],
    [byName, 'null'],
    [byName, ''],
    [byPath, 'https://cde.example.com'],
    [byPath, 'https://evil.example'],
    [{ ...byPath, hasPass: false }, 'null'],
  ])('of %o: %s stays foreign', (address, origin) => {
    expect(toLocalOrigin(origin, address)).toBe(origin);
  });
});

test.each([
  [byName, `${byName.origin}/a?b#c`, 'http://localhost:3000/a?b#c'],
  [byName, `${byName.origin}/`, 'http://localhost:3000/'],
  [byName, 'https://8000--web--ada.dev.example.com/x', 'http://localhost:8000/x'],
  [
    byName,
    'https://evil.example/https://3000--web--ada.dev.example.com/',
    'https://evil.example/https://3000--web--ada.dev.example.com/',
  ],
  [byName, `${byName.origin}.evil.example/`, `${byName.origin}.evil.example/`],
  [byPath, `https://cde.example.com${byPath.prefix}/a`, null],
  [byPath, 'https://cde.example.com/@ada/web/ports/3000/~cde.OTHER/a', null],
  [byPath, 'https://cde.example.com/workspaces', null],
])('Referer of %o: %s is %s', (address, referer, expected) => {
  expect(toLocalReferer(referer, address)).toBe(expected);
});

describe('Location', () => {
  test.each([
    ['http://localhost:3000/here?x=1', '/here?x=1'],
    ['http://127.0.0.1:3000', '/'],
    ['HTTP://LocalHost:3000/x', '/x'],
    ['http://[::1]:3000/x', '/x'],
    ['https://0.0.0.0:3000?x', '/?x'],
    ['//localhost:3000/x', '/x'],
    // A path stays a path and never becomes another host.
    ['http://localhost:3000//evil.example/', '//evil.example/'],
    ['http://localhost:3000\\@evil.example/', '/\\@evil.example/'],
  ])('%s is the port, by name', (location, path) => {
    expect(toPublicUrl(location, byName)).toBe(byName.origin + path);
    expect(toPublicUrl(location, withPort)).toBe(withPort.origin + path);
  });

  test('another port of the workspace keeps its own name', () => {
    expect(toPublicUrl('http://localhost:8080/login', byName)).toBe(
      'https://8080--web--ada.dev.example.com/login',
    );
    expect(toPublicUrl('http://localhost/', withPort)).toBe('http://80--web--ada.localhost:7484/');
    const long = { ...byName, origin: `https://3000--${'w'.repeat(52)}--ada.dev.example.com` };
    expect(toPublicUrl('http://localhost:65535/x', long)).toBe('http://localhost:65535/x');
  });

  test.each([
    '/here',
    'here',
    '',
    '?x',
    'https://example.com/',
    '//example.com/x',
    'http://localhost:3000@evil.example/',
    'http://localhost:99999/',
    'http://localhost.evil.example:3000/',
    'mailto:ada@example.com',
  ])('%s stays as it is by name', (location) => {
    expect(toPublicUrl(location, byName)).toBe(location);
  });

  test.each([
    ['/here', `${byPath.prefix}/here`],
    ['http://localhost:3000/here', `${byPath.prefix}/here`],
    ['https://cde.example.com/here', `${byPath.prefix}/here`],
    [`https://cde.example.com${byPath.prefix}/here`, `${byPath.prefix}/here`],
    [`${byPath.prefix}/here`, `${byPath.prefix}/here`],
    ['http://localhost:3000//evil.example/', `${byPath.prefix}//evil.example/`],
    ['here', 'here'],
    ['//evil.example/', '//evil.example/'],
    ['http://localhost:8080/', 'http://localhost:8080/'],
  ])('%s by path is %s', (location, expected) => {
    expect(toPublicUrl(location, byPath)).toBe(expected);
  });
});

test('Refresh and Link are redirects too', () => {
  const at = byName.origin;
  expect(toPublicRefresh('5; url=http://localhost:3000/x', byName)).toBe(`5; url=${at}/x`);
  expect(toPublicRefresh(`0;URL='http://localhost:3000/x'`, byName)).toBe(`0;URL='${at}/x'`);
  expect(toPublicRefresh('30', byName)).toBe('30');
  expect(toPublicRefresh('0; url=https://example.com/', byName)).toBe('0; url=https://example.com/');
  expect(toPublicLinks('<http://localhost:3000/?page=2>; rel="next", </a.css>; rel=preload', byName)).toBe(
    `<${at}/?page=2>; rel="next", </a.css>; rel=preload`,
  );
});
