import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { TicketSatellite } from '../auth/ticket-holder.ts';
import { systemClock } from '../clock.ts';
import { TunnelError } from '../errors.ts';
import type { Path, PathKind } from '../pipe/path.ts';
import type { ResumeHandshake } from '../pipe/resume.ts';
import { type Chooser, makeChooser } from './choose.ts';
import type { Offer } from './offers.ts';
import { relayPath, tcpPath, udpPath } from './path-id.ts';
import { makeSurvey } from './survey.ts';
import type { UdpCandidate } from './udp-candidate.ts';

const eu = { name: 'eu', url: 'https://eu', agentRttMs: 9 };
const us = { name: 'us', url: 'https://us' };
const address = '10.0.0.1:7000';
const offer = (more: Partial<Offer> = {}): Offer => ({
  paths: ['relay', 'direct-tcp', 'direct-udp'],
  satellites: [],
  addresses: [address],
  ...more,
});

let now: number;
let ended: AbortController;
beforeEach(() => {
  now = 0;
  ended = new AbortController();
});
afterEach(() => ended.abort());

/** A survey on the satellite `eu`. Round trips by URL or address; what has none is unreachable. */
function makeWorld(
  rtts: Record<string, number>,
  {
    satellites = [eu, us] as TicketSatellite[],
    paths = ['relay', 'direct-tcp', 'direct-udp'] as PathKind[],
  } = {},
) {
  const active = { kind: 'relay', via: eu.url } as Path;
  const chooser: Chooser = makeChooser();
  const probed: string[] = [];
  const dialled: string[] = [];
  const candidate = {
    isSearching: false,
    via: undefined as string | undefined,
    search: vi.fn(async () => {}),
    measure: vi.fn(async (): Promise<number | null | undefined> => undefined),
    route: () => undefined,
    drop: vi.fn(),
  };
  const onUdpSearched = vi.fn();
  const pipe = { path: active, expected: 0 };
  const survey = makeSurvey({
    pipe,
    tickets: { satellites },
    steer: { paths },
    chooser,
    candidate: candidate as UdpCandidate,
    onUdpSearched,
    probeMs: 1_000,
    clock: { ...systemClock, now: () => now },
    signal: ended.signal,
    prober: {
      async rtt(url) {
        probed.push(url);
        const rttMs = rtts[url];
        if (rttMs === undefined) throw new TunnelError('satellite-unreachable', 'ECONNREFUSED');
        return rttMs;
      },
      close() {},
    },
    routes: {
      direct: (via) => ({
        id: tcpPath(via),
        kind: 'direct-tcp',
        via,
        async connect() {
          dialled.push(via);
          const rttMs = rtts[via];
          if (rttMs === undefined) throw new TunnelError('path-unreachable', `${via}: connection refused`);
          let extra = 3;
          return {
            request: async () => ({ agentPosition: 0, rttMs: rttMs + extra-- }),
            drop() {},
          } as unknown as ResumeHandshake;
        },
      }),
    },
  });
  chooser.use(relayPath(eu.url), 0, 'need');
  return { survey, chooser, candidate, onUdpSearched, pipe, probed, dialled };
}

describe('the available paths', () => {
  it('are the satellites only, until the agent has made an offer', () => {
    const { survey, chooser } = makeWorld({});
    survey.publish();
    expect(chooser.ranking(now)).toEqual([relayPath(eu.url), relayPath(us.url)]);
    survey.offered = offer();
    survey.publish();
    expect(chooser.ranking(now)).toEqual([relayPath(eu.url), relayPath(us.url), tcpPath(address), udpPath]);
  });

  it('are of the kinds that both client and agent allow', () => {
    const { survey, chooser } = makeWorld({}, { paths: ['direct-tcp', 'direct-udp'] });
    survey.offered = offer({ paths: ['relay', 'direct-tcp'] });
    survey.publish();
    expect(chooser.ranking(now)).toEqual([tcpPath(address)]);
    expect((['relay', 'direct-tcp', 'direct-udp'] as const).map(survey.isAllowed)).toEqual([
      false,
      true,
      false,
    ]);
    survey.offered = null;
    expect(survey.addresses()).toEqual([]);
  });

  it('lose their measurements when they are withdrawn', async () => {
    const { survey } = makeWorld({ [eu.url]: 5, [address]: 1 });
    survey.offered = offer();
    survey.publish();
    await survey.measure(true);
    expect(survey.measurements().map(({ via }) => via)).toContain(address);
    survey.offered = offer({ addresses: [] });
    survey.publish();
    expect(survey.measurements().map(({ via }) => via)).not.toContain(address);
  });

  it('are incomplete if the agent is at a satellite that the ticket does not name', () => {
    const { survey } = makeWorld({});
    expect(survey.hasUnknownSatellite()).toBe(false);
    const elsewhere = (name: string, url: string) => offer({ satellites: [{ name, url, rttMs: 1 }] });
    // The embedded satellite has another URL for agents.
    survey.offered = elsewhere('eu', 'https://eu.internal');
    expect(survey.hasUnknownSatellite()).toBe(false);
    survey.offered = elsewhere('asia', 'https://asia');
    expect(survey.hasUnknownSatellite()).toBe(true);
  });
});

describe('a round of measurements', () => {
  it('adds the round trips of client and agent, and sorts by the sum', async () => {
    const { survey, chooser } = makeWorld({ [eu.url]: 20, [us.url]: 4 });
    // The agent's current figures take precedence over the ticket's.
    survey.offered = offer({
      addresses: [],
      satellites: [{ name: 'us', url: 'https://us.internal', rttMs: 80 }],
    });
    survey.publish();
    await survey.measure(true);
    expect(survey.measurements()).toEqual([
      { kind: 'relay', via: eu.url, clientMs: 20, agentMs: 9, rttMs: 29 },
      { kind: 'relay', via: us.url, clientMs: 4, agentMs: 80, rttMs: 84 },
    ]);
    expect(chooser.rtt(relayPath(eu.url))).toBe(29);
  });

  it('keeps the reason for what is unreachable, and lists it last', async () => {
    const { survey } = makeWorld({ [us.url]: 4 });
    survey.publish();
    await survey.measure(true);
    expect(survey.measurements()).toMatchObject([
      { via: us.url, rttMs: 13 },
      { via: eu.url, rttMs: null, error: expect.stringContaining('ECONNREFUSED') },
    ]);
  });

  it('covers only the nearest satellites and the active one, unless all are requested', async () => {
    const many = Array.from({ length: 8 }, (_, i) => ({ name: `s${i}`, url: `https://s${i}` }));
    const rtts = Object.fromEntries([[eu.url, 100], ...many.map(({ url }, i) => [url, i + 1])]);
    const { survey, probed } = makeWorld(rtts, { satellites: [eu, ...many] });
    survey.publish();
    await survey.measure(true);
    expect(new Set(probed).size).toBe(9);
    probed.length = 0;
    await survey.measure(false);
    expect(new Set(probed)).toEqual(new Set([eu.url, ...many.slice(0, 4).map(({ url }) => url)]));
  });

  it('takes the minimum of a few requests to each address, and skips one that has just failed', async () => {
    const { survey, dialled } = makeWorld({ [address]: 2 });
    survey.offered = offer({ addresses: [address, '10.0.0.9:1'] });
    survey.publish();
    await survey.measure(false);
    expect(survey.measurements()[0]).toEqual({ kind: 'direct-tcp', via: address, rttMs: 3 });
    expect(survey.tcpFailure()).toBe('');
    dialled.length = 0;
    await survey.measure(false);
    expect(dialled).toEqual([address]);
  });

  it('explains why no address is reachable', async () => {
    const { survey } = makeWorld({});
    survey.offered = offer();
    survey.publish();
    await survey.measure(false);
    expect(survey.tcpFailure()).toBe('The address does not answer: 10.0.0.1:7000: connection refused');
  });
});

describe('a path by UDP', () => {
  it('is searched for in the background, and announced', async () => {
    const { survey, candidate, onUdpSearched } = makeWorld({});
    survey.offered = offer({ addresses: [] });
    survey.publish();
    await survey.measureUdp();
    await vi.waitFor(() => expect(onUdpSearched).toHaveBeenCalledOnce());
    expect(candidate.search).toHaveBeenCalledOnce();
    expect(survey.udpFailure()).toBe('');
  });

  it('is not searched for if a direct address is close enough', async () => {
    const { survey, candidate, chooser } = makeWorld({});
    survey.offered = offer();
    survey.publish();
    chooser.sample(tcpPath(address), 1.5, now);
    await survey.measureUdp();
    expect(candidate.search).not.toHaveBeenCalled();
  });

  it('is held off after a failed search, with the reason', async () => {
    const { survey, candidate, onUdpSearched } = makeWorld({});
    survey.offered = offer({ addresses: [] });
    survey.publish();
    candidate.search.mockRejectedValueOnce(new TunnelError('path-unreachable', 'no path'));
    await survey.findUdp();
    expect(survey.udpFailure()).toBe('The address does not answer: no path');
    expect(onUdpSearched).toHaveBeenCalledOnce();
    await survey.measureUdp();
    expect(candidate.search).toHaveBeenCalledOnce();
    now = 30_000;
    await survey.measureUdp();
    expect(candidate.search).toHaveBeenCalledTimes(2);
  });

  it('is withdrawn on a machine that does not support it', async () => {
    const { survey, candidate } = makeWorld({});
    survey.offered = offer();
    candidate.search.mockRejectedValueOnce(new TunnelError('path-unsupported', 'no module'));
    await survey.findUdp();
    survey.publish();
    expect(survey.isAllowed('direct-udp')).toBe(false);
    expect(survey.udpFailure()).toContain('no module');
  });

  it('leaves no trace of a search that was cancelled', async () => {
    const { survey, candidate, onUdpSearched } = makeWorld({});
    candidate.search.mockRejectedValueOnce(new TunnelError('session-aborted'));
    await survey.findUdp();
    expect(onUdpSearched).not.toHaveBeenCalled();
    expect(survey.measurements()).toEqual([]);
  });

  it('is measured through its candidate, which is dropped if the session already uses UDP', async () => {
    const { survey, candidate, chooser, pipe } = makeWorld({});
    survey.offered = offer({ addresses: [] });
    survey.publish();
    Object.assign(candidate, { via: '203.0.113.9:4000' });
    candidate.measure.mockResolvedValue(7);
    await survey.measureUdp();
    expect(survey.measurements()).toEqual([{ kind: 'direct-udp', via: '203.0.113.9:4000', rttMs: 7 }]);
    expect(chooser.rtt(udpPath)).toBe(7);
    expect(candidate.drop).not.toHaveBeenCalled();
    pipe.path = { kind: 'direct-udp', via: '203.0.113.9:4000' } as Path;
    await survey.measureUdp();
    expect(candidate.drop).toHaveBeenCalledOnce();
  });

  it('is forgotten by the chooser when its candidate is released', async () => {
    const { survey, candidate, chooser } = makeWorld({});
    survey.offered = offer({ addresses: [] });
    survey.publish();
    survey.releaseUdp();
    expect(candidate.drop).not.toHaveBeenCalled();
    Object.assign(candidate, { via: '203.0.113.9:4000' });
    chooser.sample(udpPath, 7, now);
    survey.releaseUdp();
    expect(candidate.drop).toHaveBeenCalledOnce();
    expect(chooser.rtt(udpPath)).toBeUndefined();
  });
});
