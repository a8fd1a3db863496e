/** Import it before ssh2. The bundle leaves it out. */
import { registerHooks } from 'node:module';
import { limitedFile, withPacketLimit } from './packet-limit.ts';

registerHooks({
  load(url, context, nextLoad) {
    const loaded = nextLoad(url, context);
    if (!limitedFile.test(url) || loaded.source == null) return loaded;
    return { ...loaded, source: withPacketLimit(loaded.source.toString()) };
  },
});
