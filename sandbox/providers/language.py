"""The language host: runs a Python program for the Pulumi engine, with the one that the SDK has for inline programs."""

import os
import runpy
import sys
from typing import Any

from pulumi.automation._server import LanguageServer  # the SDK has no public name for it
from pulumi.runtime.proto import language_pb2


class Host(LanguageServer):
    """Takes the program from the request, where the SDK's has one from the beginning."""

    def Run(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        directory = request.info.program_directory or request.pwd
        os.chdir(directory)
        sys.path.insert(0, directory)

        def program() -> None:
            runpy.run_path(os.path.join(directory, "__main__.py"), run_name="__main__")

        self.program = program
        # What went wrong has been said by then; as an error the engine would say it again.
        return language_pb2.RunResponse(bail=bool(super().Run(request, context).error))
