// `weirgate purge`: removes stored responses of a running gateway.

import { Command } from 'commander'
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
      console.log(
        JSON.stringify(await askAdmin(configOf(config).admin, 'POST', '/api/cache/purge', { ...asked, soft })),
      )
    })
