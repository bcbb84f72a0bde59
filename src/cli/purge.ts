// `weirgate purge`: removes stored responses of a running gateway.

import { Command } from 'commander'
import type { PurgeResult } from '../core/control.ts'
import { askAdmin } from './admin-client.ts'
import { UsageError, configOf, configOption } from './files.ts'

interface PurgeOptions {
  readonly config: string
  readonly tag?: readonly string[]
  readonly prefix?: string
  readonly pattern?: string
  readonly all?: true
  readonly soft?: true
}

export const purgeCommand = () =>
  new Command('purge')
    .description('remove stored responses, all variants: by URL, tag, prefix or pattern, or all of them')
    .argument('[urls...]', 'absolute, or a path that stands for every host')
    .option('--tag <tag...>', 'what carries one of these tags')
    .option('--prefix <url>', 'what begins with this')
    .option('--pattern <glob>', 'what matches this as a whole; * stands for any text')
    .option('--all', 'everything')
    .option('--soft', 'make it stale instead: it may still answer while it is being refreshed, or the origin fails')
    .addOption(configOption())
    .action(async (urls: readonly string[], { config, tag, prefix, pattern, all, soft }: PurgeOptions) => {
      const asked = { urls: urls.length > 0 ? urls : undefined, tags: tag, prefix, pattern, all }
      if (Object.values(asked).filter((value) => value !== undefined).length !== 1) {
        throw new UsageError('Name what to purge, in one way: URLs, --tag, --prefix, --pattern or --all.')
      }
      const answer = await askAdmin(configOf(config).admin, 'POST', '/api/cache/purge', 'purged', { ...asked, soft })
      console.log(JSON.stringify(answer))
      const doubt = doubtIn(answer as PurgeResult)
      if (doubt !== null) throw new Error(doubt)
    })

/** Why it may not be done everywhere; null where it is. */
function doubtIn({ shared, unacknowledged }: PurgeResult): string | null {
  if (shared === false) {
    return 'Redis could not be reached: only this instance has purged. It tells the others when Redis is back.'
  }
  if (unacknowledged.length === 0) return null
  return `Not answered in time by ${unacknowledged.join(', ')}: done there as soon as they hear of it.`
}
