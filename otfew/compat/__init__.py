"""What otfew has to offer in the shapes of other libraries; each module imports the library that it is named after."""
