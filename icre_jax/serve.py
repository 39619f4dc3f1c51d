"""A page to search a gallery with, for this machine only: `python -m icre_jax.serve --index DIR`.

DIR is what `icre_jax.index` made. The page takes an image, or one of the gallery, and shows the most similar people,
with the verdict of --calibration ("candidates, not identifications", or "not in the gallery"). It listens at 127.0.0.1;
--listen, a token and a name for other machines. Nothing that is sent is kept. Needs `icre_jax[serve]`.
"""

from collections.abc import Sequence

from icre_jax.errors import InputError
from icre_jax.machine import command
from icre_jax.machine.caches import keep_compiled_programs
from icre_jax.machine.screen import Screen


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = command.make_parser("serve", __doc__)
    parser.add_argument("--index", required=True, type=command.path, metavar="DIR", help="folder of the index")
    parser.add_argument(
        "--calibration", type=command.path, metavar="FILE", help='say "not in the gallery" below its threshold'
    )
    parser.add_argument("--network", help="where the index's network is, if it was moved")
    parser.add_argument("--top", type=int, default=10, help="people of an answer at most; default: 10")
    parser.add_argument("--port", type=int, default=8765, help="0 for any that is free; default: 8765")
    parser.add_argument("--listen", default="127.0.0.1", metavar="ADDRESS", help="for others too; needs --token_file")
    parser.add_argument("--host_name", nargs="+", default=[], metavar="NAME", help="by which others call this machine")
    parser.add_argument(
        "--token_file", type=command.path, metavar="FILE", help="a secret that has to be typed into the page"
    )
    flags = parser.parse_args(arguments)
    try:
        from icre_jax.serving.server import bind, check_access, serve
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("starlette", "uvicorn"):
            raise
        raise InputError("The page needs Starlette and uvicorn: pip install 'icre_jax[serve]'.") from error
    from icre_jax.serving.limits import Limits
    from icre_jax.serving.searcher import Searcher

    limits = Limits()
    access = check_access(flags.listen, flags.host_name, flags.token_file)
    with bind(access, flags.port) as opened:
        with Screen() as screen:
            keep_compiled_programs()
            screen.say("Loading the network and compiling; a few seconds.")
            searcher = Searcher.load(
                flags.index, network=flags.network, calibration=flags.calibration, top=flags.top, limits=limits
            )
            searcher.warm_up()
            opened.listen()  # who opens the page at once waits a moment, and is not turned away
            screen.say(f"Open http://{access.host}:{opened.getsockname()[1]} in a browser; Ctrl-C stops the server.")
        serve(searcher, access, opened, limits)
        print("Stopped. Nothing of what was searched for is kept.")
    return 0


if __name__ == "__main__":
    command.run(main)
