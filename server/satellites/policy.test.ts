import { TemplateFile } from '@cde/api/template-file.ts';
import { describe, expect, it } from 'vitest';
import { parseTemplate } from '../templates/parse.ts';
import { allowedPaths } from './policy.ts';
import { makeSatelliteRegistry } from './registry.ts';

describe('connection policy', () => {
  it('allows the paths that both the server and the template allow', () => {
    const both = ['relay', 'direct-tcp'] as const;
    expect(allowedPaths(both, null)).toEqual({
      paths: ['relay', 'direct-tcp'],
      regions: null,
      direct: { port: 0, addresses: [] },
    });
    expect(allowedPaths(both, { paths: ['relay'], regions: ['eu'] })).toEqual({
      paths: ['relay'],
      regions: ['eu'],
      direct: null,
    });
    expect(allowedPaths(['relay'], { direct: { port: 7100, addresses: ['a:1'] } })).toMatchObject({
      paths: ['relay'],
      direct: null,
    });
    expect(allowedPaths(['relay'], { paths: ['direct-tcp'] })).toMatchObject({ paths: [], direct: null });
    expect(allowedPaths(both, { direct: { port: 7100, addresses: ['a:1'] } }).direct).toEqual({
      port: 7100,
      addresses: ['a:1'],
    });
  });

  it("lists only satellites in the allowed regions, including the server's own", async () => {
    const location = (name: string, region: string) => ({ id: name, name, url: `https://${name}`, region });
    const registry = makeSatelliteRegistry({
      store: { listServing: async () => [location('frankfurt', 'eu'), location('tokyo', 'ap')] },
      embedded: {
        forAgents: async () => [location('embedded', 'eu')],
        forClients: async () => [location('embedded', '')],
      },
    });
    const names = async (list: Promise<{ name: string }[]>) => (await list).map(({ name }) => name);
    expect(await names(registry.forAgents(null))).toEqual(['embedded', 'frankfurt', 'tokyo']);
    expect(await names(registry.forAgents(['eu']))).toEqual(['embedded', 'frankfurt']);
    expect(await names(registry.forClients(['eu']))).toEqual(['frankfurt']);
    expect(await names(registry.forClients(['us']))).toEqual([]);
  });

  it.each([
    ['paths: [carrier-pigeon]', 'connection.paths[0]'],
    ['paths: []', 'connection.paths'],
    ['regions: []', 'connection.regions'],
    ['direct: {port: 70000}', 'connection.direct.port'],
    ['direct: {addresses: [nowhere]}', 'connection.direct.addresses[0]'],
  ])('a template with %s is rejected with the path', (connection, path) => {
    const { faults } = parseTemplate({
      'template.yaml': `name: demo\nprovider: local\nconnection: {${connection}}\n`,
    });
    expect(faults).toMatchObject([{ path }]);
  });

  it('is part of a template version', () => {
    const connection = { paths: ['relay'], regions: ['eu'] };
    const file = { name: 'demo', provider: 'local', connection };
    expect(TemplateFile.parse(file).connection).toEqual(connection);
  });
});
