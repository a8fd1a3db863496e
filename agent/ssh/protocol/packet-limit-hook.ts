/** Must be imported before ssh2. Left out of the bundle. */
import { registerHooks } from 'node:module';
import { limitedFile, withPacketLimit } from './packet-limit.ts';

registerHooks({
  load(url, context, nextLoad) {
    const loaded = nextLoad(url, context);
    if (!limitedFile.test(url) || loaded.source == null) return loaded;
    return { ...loaded, source: withPacketLimit(loaded.source.toString()) };
  },
});
