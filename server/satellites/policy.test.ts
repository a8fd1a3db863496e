import { TemplateFile } from '@cde/api/templates.ts';
import { describe, expect, it } from 'vitest';
import { parseTemplate } from '../templates/parse.ts';
import { allowedPaths } from './policy.ts';
import { makeSatelliteRegistry } from './registry.ts';

describe('which paths are allowed', () => {
  it('what the server allows, and of that what the template does', () => {
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

  it('takes the satellites of the regions alone, the server’s own by its region', async () => {
    const place = (name: string, region: string) => ({ id: name, name, url: `https://${name}`, region });
    const registry = makeSatelliteRegistry({
      store: { listServing: async () => [place('frankfurt', 'eu'), place('tokyo', 'ap')] },
      embedded: {
        forAgents: async () => [place('embedded', 'eu')],
        forClients: async () => [place('embedded', '')],
      },
    });
    const names = async (asked: Promise<{ name: string }[]>) => (await asked).map(({ name }) => name);
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
  ])('a template that says %s is faulty there', (connection, path) => {
    const { faults } = parseTemplate({
      'template.yaml': `name: demo\nprovider: local\nconnection: {${connection}}\n`,
    });
    expect(faults).toMatchObject([{ path }]);
  });

  it('is kept by the version of a template', () => {
    const connection = { paths: ['relay'], regions: ['eu'] };
    const file = { name: 'demo', provider: 'local', connection };
    expect(TemplateFile.parse(file).connection).toEqual(connection);
  });
});
