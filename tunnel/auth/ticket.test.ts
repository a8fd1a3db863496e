import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { SignJWT, UnsecuredJWT } from 'jose';
import { describe, expect, it } from 'vitest';
import { makeClientKey } from './keys.ts';
import { makeTicketSigner, type TicketClaims, verifyListenToken, verifyTicket } from './ticket.ts';

const { privateKey } = generateKeyPairSync('ed25519');
const signer = makeTicketSigner(privateKey);
const other = makeTicketSigner(generateKeyPairSync('ed25519').privateKey);
const now = new Date('2026-03-01T12:00:00Z');
const seconds = now.getTime() / 1000;

function claims(changes: Partial<TicketClaims> = {}): Omit<TicketClaims, 'kind'> {
  return {
    workspaceId: randomUUID(),
    workspace: 'ada/hello',
    userId: randomUUID(),
    username: 'ada',
    agentKey: 'a'.repeat(43),
    clientKey: makeClientKey().publicKey,
    satellites: ['embedded'],
    paths: ['relay', 'direct-tcp'],
    jti: randomUUID(),
    exp: seconds + 120,
    ...changes,
  };
}

const code = (expected: string) => expect.objectContaining({ code: expected });

describe('tickets', () => {
  it('can be read by everyone with the public key', async () => {
    const signed = claims();
    const ticket = await signer.signTicket(signed);
    expect(await verifyTicket(ticket, [other.publicKey, signer.publicKey], now)).toEqual({
      kind: 'client',
      ...signed,
    });
  });

  it('with limits are of a kind that an older agent refuses, and none is without the other', async () => {
    const signed = claims({ only: ['tcp:localhost:3000'] });
    const read = (token: string) => verifyTicket(token, [signer.publicKey], now);
    expect(await read(await signer.signTicket(signed))).toEqual({ kind: 'limited', ...signed });
    expect(() => signer.signTicket(claims({ only: [] }))).toThrow();
    expect(() => signer.signTicket(claims({ only: ['tcp:10.0.0.1:80'] }))).toThrow();
  });

  it('expire, with half a minute for clocks that differ', async () => {
    const ticket = await signer.signTicket(claims());
    const at = (offset: number) =>
      verifyTicket(ticket, [signer.publicKey], new Date((seconds + offset) * 1000));
    await expect(at(149)).resolves.toBeTruthy();
    await expect(at(151)).rejects.toEqual(code('ticket-expired'));
    const token = await signer.signListenToken({
      workspaceId: randomUUID(),
      buildId: randomUUID(),
      exp: seconds,
    });
    await expect(
      verifyListenToken(token, [signer.publicKey], null, new Date((seconds + 31) * 1000)),
    ).rejects.toEqual(code('listen-token-expired'));
  });

  it('are refused when forged, changed, unsigned, of another kind or not tickets at all', async () => {
    const ticket = await signer.signTicket(claims());
    const [header, payload, signature] = ticket.split('.') as [string, string, string];
    const altered = Buffer.from(
      JSON.stringify({ ...JSON.parse(Buffer.from(payload, 'base64url').toString()), username: 'eve' }),
    ).toString('base64url');
    const kid = JSON.parse(Buffer.from(header, 'base64url').toString()).kid as string;
    const forgeries = {
      'another key': await other.signTicket(claims()),
      'another key under the kid of the right one': await new SignJWT(claims())
        .setProtectedHeader({ alg: 'EdDSA', kid })
        .sign(generateKeyPairSync('ed25519').privateKey),
      altered: `${header}.${altered}.${signature}`,
      unsigned: new UnsecuredJWT(claims()).encode(),
      'HMAC with the public key': await new SignJWT(claims())
        .setProtectedHeader({ alg: 'HS256', kid })
        .sign(Buffer.from(signer.publicKey, 'base64url')),
      'no expiry': await new SignJWT({ ...claims(), exp: undefined, kind: 'client' })
        .setProtectedHeader({ alg: 'EdDSA', kid })
        .sign(privateKey),
      'a listen token': await signer.signListenToken({
        workspaceId: randomUUID(),
        buildId: randomUUID(),
        exp: seconds + 60,
      }),
      'limits without being limited': await new SignJWT({ ...claims({ only: ['ssh'] }), kind: 'client' })
        .setProtectedHeader({ alg: 'EdDSA', kid })
        .sign(privateKey),
      'limited to nothing': await new SignJWT({ ...claims(), kind: 'limited' })
        .setProtectedHeader({ alg: 'EdDSA', kid })
        .sign(privateKey),
      empty: '',
      long: 'x'.repeat(100_000),
      'not a token': 'a.b.c',
    };
    for (const [name, token] of Object.entries(forgeries)) {
      await expect(verifyTicket(token, [signer.publicKey], now), name).rejects.toEqual(
        code('ticket-invalid'),
      );
    }
    await expect(verifyListenToken(ticket, [signer.publicKey], null, now)).rejects.toEqual(
      code('listen-token-invalid'),
    );
  });

  it('let an agent listen at the satellite that they name, and at no other', async () => {
    const claims = { workspaceId: randomUUID(), buildId: randomUUID(), exp: seconds + 60 };
    const token = await signer.signListenToken({ ...claims, satellite: 'tokyo-1' });
    const keys = [signer.publicKey];
    await expect(verifyListenToken(token, keys, 'tokyo-1', now)).resolves.toMatchObject(claims);
    await expect(verifyListenToken(token, keys, 'embedded', now)).rejects.toEqual(
      code('listen-token-invalid'),
    );
    // As servers of earlier releases sign them: good nowhere.
    const unnamed = await signer.signListenToken(claims);
    await expect(verifyListenToken(unnamed, keys, 'tokyo-1', now)).rejects.toEqual(
      code('listen-token-invalid'),
    );
  });

  it('are not signed with what is not a ticket', async () => {
    expect(() => signer.signTicket(claims({ agentKey: 'short' }))).toThrow();
    expect(() => makeTicketSigner(generateKeyPairSync('x25519').privateKey)).toThrow(TypeError);
  });
});
