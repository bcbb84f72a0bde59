// `weirgate purge`: removes stored responses of a running gateway.

import { Command } from 'commander'
import { askAdmin } from './admin-client.ts'
import { configOf, configOption } from './files.ts'

export const purgeCommand = () =>
  new Command('purge')
    .description('remove stored responses by URL, all variants')
    .argument('<urls...>', 'absolute, or a path that stands for every host')
    .addOption(configOption())
    .action(async (urls: readonly string[], { config }: { config: string }) => {
      console.log(JSON.stringify(await askAdmin(configOf(config).admin, 'POST', '/api/cache/purge', { urls })))
    })
