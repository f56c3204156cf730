"""A moment on the command line."""

import click

from api.wire.moment import Moment


class MomentType(click.ParamType[Moment]):
    """A position of the log, or a time as RFC 3339 has it."""

    name = "POSITION|TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Moment:
        """The moment; fails with a sentence."""
        try:
            return value if isinstance(value, Moment) else Moment.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


MOMENT = MomentType()
