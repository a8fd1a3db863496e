import { jwtVerify, SignJWT } from 'jose';
import { z } from 'zod';

/** How long a browser can open ports without going back to the dashboard. Ending its session ends the pass earlier. */
const passLifetimeMs = 12 * 3600_000;

const CookieClaims = z.object({ sid: z.uuid(), host: z.string() });
const PathClaims = z.object({ sid: z.uuid().nullable(), workspace: z.uuid(), port: z.number().int() });
type CookieClaims = z.infer<typeof CookieClaims>;
type PathClaims = z.infer<typeof PathClaims>;

/**
 * What a browser presents to a port in place of the dashboard's session: a cookie for one host name, or a pass in the
 * path of one port. Both name the browser session behind them (`sid`) and are valid only as long as it is.
 */
export function makePasses(key: Uint8Array, now: () => Date) {
  const sign = (audience: string, claims: CookieClaims | PathClaims) =>
    new SignJWT({ ...claims })
      .setProtectedHeader({ alg: 'HS256' })
      .setAudience(audience)
      .setExpirationTime(new Date(now().getTime() + passLifetimeMs))
      .sign(key);
  const verify = async <T>(audience: string, schema: z.ZodType<T>, text: string): Promise<T | null> => {
    try {
      const { payload } = await jwtVerify(text, key, {
        algorithms: ['HS256'],
        audience,
        currentDate: now(),
      });
      return schema.parse(payload);
    } catch {
      return null;
    }
  };
  return {
    maxAgeSeconds: passLifetimeMs / 1000,
    signCookie: (claims: CookieClaims) => sign('cde-port-cookie', claims),
    readCookie: (text: string) => verify('cde-port-cookie', CookieClaims, text),
    signPath: (claims: PathClaims) => sign('cde-port-path', claims),
    readPath: (text: string) => verify('cde-port-path', PathClaims, text),
  };
}

export type Passes = ReturnType<typeof makePasses>;
